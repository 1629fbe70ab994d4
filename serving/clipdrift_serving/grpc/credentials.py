"""TLS for the gRPC listener, from the same files as that of HTTP."""

import grpc

from clipdrift_serving.access.tls import TlsContext


def server_credentials(tls: TlsContext) -> grpc.ServerCredentials:
    """Credentials that follow a renewed certificate: gRPC asks for each new connection."""
    authorities = tls.client_authorities()
    last: list[tuple[bytes, bytes]] = [tls.pair()]

    def configuration() -> grpc.ServerCertificateConfiguration | None:
        try:
            pair = tls.pair()
        except OSError:
            return None  # as before
        if pair == last[0]:
            return None
        last[0] = pair
        return grpc.ssl_server_certificate_configuration([pair], authorities)

    first = grpc.ssl_server_certificate_configuration([last[0]], authorities)
    credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(first, configuration, authorities is not None)
    return credentials
