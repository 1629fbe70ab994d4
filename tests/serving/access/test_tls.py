"""TLS by real handshakes: what a client is shown before and after a renewal, and who is let in."""

import asyncio
import contextlib
import datetime
import ipaddress
import logging
import ssl
import threading
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clipdrift_contract.clock import SystemClock
from clipdrift_contract.errors import ConfigError
from clipdrift_serving.access.tls import TlsContext
from clipdrift_serving.grpc.credentials import server_credentials

_PEM = serialization.Encoding.PEM
_PLAIN = serialization.NoEncryption()


class ForwardClock(SystemClock):
    """The machine's clock, which may be set forward."""

    ahead_seconds = 0.0

    def monotonic_seconds(self) -> float:
        return super().monotonic_seconds() + self.ahead_seconds


class Signed(NamedTuple):
    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def key_pem(self, encryption: serialization.KeySerializationEncryption = _PLAIN) -> bytes:
        return self.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, encryption)

    def pem(self) -> bytes:
        return self.certificate.public_bytes(_PEM)


def sign(name: str, by: Signed | None = None) -> Signed:
    """A certificate for 127.0.0.1, by an authority or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .sign(key if by is None else by.key, hashes.SHA256())
    )
    return Signed(name, key, made)


class Served:
    """The files, the context, and a small server that greets who gets through the handshake."""

    def __init__(self, folder: Path, first: Signed, authority: Signed | None = None) -> None:
        self.chain, self.key = folder / "chain.pem", folder / "key.pem"
        self.client_ca = None if authority is None else folder / "clients.pem"
        self.clock = ForwardClock()
        if self.client_ca is not None:
            self.client_ca.write_bytes(authority.pem())
        self.put(first)
        self.tls = TlsContext(self.chain, self.key, self.client_ca, self.clock)

    def put(self, signed: Signed) -> None:
        self.chain.write_bytes(signed.pem())
        self.key.write_bytes(signed.key_pem())

    def refresh(self) -> bool:
        self.clock.ahead_seconds += 1.0
        return self.tls.refresh()

    @contextlib.asynccontextmanager
    async def listening(self):
        async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            with contextlib.suppress(OSError):
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=self.tls.context)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()


async def shown(port: int, context: ssl.SSLContext | None = None) -> str:
    """Common name on the certificate that the server shows; raises OSError where it ends the handshake or says nothing."""
    if context is None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        greeting = await asyncio.wait_for(reader.read(5), 5)
        if greeting != b"hello":
            raise ConnectionResetError("no greeting")
        shown_der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        name = x509.load_der_x509_certificate(shown_der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        return str(name)
    finally:
        writer.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_new_connections_get_the_renewed_certificate_and_an_open_one_goes_on(tmp_path, run):
    served = Served(tmp_path, sign("first"))

    async def talk() -> list[str]:
        async with served.listening() as port:
            seen = [await shown(port)]
            served.put(sign("second"))
            seen.append(await shown(port))  # not looked at yet
            assert served.refresh()
            seen.append(await shown(port))
            served.put(sign("third"))
            assert served.refresh()
            return [*seen, await shown(port)]

    assert run(talk()) == ["first", "first", "second", "third"]


def _cut(served: Served, new: Signed) -> None:
    served.chain.write_bytes(new.pem()[:100])


def _mismatched(served: Served, new: Signed) -> None:
    served.chain.write_bytes(new.pem())


def _empty(served: Served, new: Signed) -> None:
    served.key.write_bytes(b"")


def _gone(served: Served, new: Signed) -> None:
    served.key.unlink()


def _with_a_password(served: Served, new: Signed) -> None:
    served.chain.write_bytes(new.pem())
    served.key.write_bytes(new.key_pem(serialization.BestAvailableEncryption(b"x")))


@pytest.mark.parametrize("spoil", [_cut, _mismatched, _empty, _gone, _with_a_password])
def test_a_spoilt_renewal_keeps_the_old_certificate_and_is_said_once_until_it_is_mended(tmp_path, caplog, spoil):
    old, new = sign("first"), sign("second")
    served = Served(tmp_path, old)

    async def talk() -> list[str]:
        async with served.listening() as port:
            spoil(served, new)
            assert [served.refresh() for _ in range(4)] == [False] * 4
            seen = [await shown(port)]
            served.put(new)
            assert served.refresh()
            return [*seen, await shown(port)]

    assert asyncio.run(talk()) == ["first", "second"]
    refusals = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(refusals) == served.tls.num_refused
    assert 1 <= len(refusals) <= (4 if spoil is _gone else 1)  # a file that is away cannot be told from one that is away still
    assert served.tls.pair() == (new.key_pem(), new.pem())


def test_files_that_do_not_change_are_not_taken_over_again(tmp_path):
    served = Served(tmp_path, sign("first"))
    assert [served.refresh() for _ in range(3)] == [False] * 3


@pytest.mark.parametrize("spoil", [_cut, _mismatched, _empty, _gone, _with_a_password])
def test_a_spoilt_pair_ends_the_start(tmp_path, spoil):
    served = Served(tmp_path, sign("first"))
    spoil(served, sign("second"))
    with pytest.raises(ConfigError, match=r"chain\.pem"):
        TlsContext(served.chain, served.key, None, served.clock)


def test_tls_older_than_1_2_is_refused(tmp_path):
    served = Served(tmp_path, sign("first"))
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    versions = []

    async def talk() -> None:
        async with served.listening() as port:
            for version in (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                old.minimum_version = ssl.TLSVersion.TLSv1
                old.maximum_version = version
                with contextlib.suppress(OSError):
                    await shown(port, old)
                    versions.append(version)

    with pytest.warns(DeprecationWarning, match="TLSv1"):
        asyncio.run(talk())
    assert versions == [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def _client(folder: Path, signed: Signed | None, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = version
    if signed is not None:
        file = folder / f"{signed.name}.client"
        file.write_bytes(signed.pem() + signed.key_pem())
        context.load_cert_chain(file)
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_only_clients_of_the_authority_are_let_in_and_a_new_authority_counts_from_then_on(tmp_path, version):
    authority, successor = sign("authority"), sign("successor")
    served = Served(tmp_path, sign("server"), authority)
    clients = {
        "of the authority": _client(tmp_path, sign("a", authority), version),
        "of the successor": _client(tmp_path, sign("b", successor), version),
        "signed by itself": _client(tmp_path, sign("c"), version),
        "without": _client(tmp_path, None, version),
    }

    async def let_in(port: int) -> list[str]:
        names = []
        for name, context in clients.items():
            with contextlib.suppress(OSError):
                await shown(port, context)
                names.append(name)
        return names

    async def talk() -> tuple[list[str], list[str]]:
        async with served.listening() as port:
            before = await let_in(port)
            served.client_ca.write_bytes(successor.pem())
            assert served.refresh()
            return before, await let_in(port)

    assert asyncio.run(talk()) == (["of the authority"], ["of the successor"])


def test_no_repr_or_log_holds_the_private_key(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    first, second = sign("first"), sign("second")
    served = Served(tmp_path, first)
    _mismatched(served, second)
    served.refresh()
    served.put(second)
    served.refresh()
    said = caplog.text + repr(served.tls) + str(served.tls)
    assert "stays as it was" in said
    for signed in (first, second):
        assert not [line for line in signed.key_pem().decode().splitlines()[1:-1] if line in said]


class _Greeter(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)


def test_grpc_shows_the_renewed_certificate_too(tmp_path):
    first, second = sign("first"), sign("second")
    served = Served(tmp_path, first)
    from concurrent.futures import ThreadPoolExecutor

    server = grpc.server(ThreadPoolExecutor(1), handlers=(_Greeter(),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(served.tls))
    server.start()

    def trusts(signed: Signed) -> bool:
        """Whether a client that trusts this certificate alone is answered."""
        with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(signed.pem())) as channel:
            try:
                return channel.unary_unary("/a/b")(b"x", timeout=5) == b"x"
            except grpc.RpcError:
                return False

    try:
        assert [trusts(first), trusts(second)] == [True, False]
        _mismatched(served, second)
        served.refresh()
        assert trusts(first)
        served.put(second)
        assert served.refresh()
        assert [trusts(first), trusts(second)] == [False, True]
    finally:
        server.stop(None).wait()


def test_threads_of_grpc_always_get_a_pair_that_fits(tmp_path):
    """`pair` is one of those that were in use, whole, whatever happens to the files meanwhile."""
    signed = [sign(str(n)) for n in range(20)]
    served = Served(tmp_path, signed[0])
    known = {(one.key_pem(), one.pem()) for one in signed}
    seen, is_over = set(), threading.Event()

    def look() -> None:
        while not is_over.is_set():
            seen.add(served.tls.pair())

    looking = threading.Thread(target=look)
    looking.start()
    for one in signed[1:]:
        served.chain.write_bytes(one.pem())
        served.refresh()
        served.put(one)
        assert served.refresh()
    is_over.set()
    looking.join()
    assert seen <= known
    assert served.tls.num_refused == 19
