"""The protocol's message classes, in a descriptor pool of their own.

A client of the protocol registers the same names in protobuf's default pool; two definitions there would end the process that
imports both.
"""

from base64 import b85decode
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from clipdrift_serving.grpc.protocol.described import DESCRIBED

SERVICE = "inference.GRPCInferenceService"
POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(b85decode(DESCRIBED)).file:
    POOL.Add(_file)


def message(name: str) -> Any:
    """The class of a message, by its name in the package.

    Example:
        >>> message("ServerLiveResponse")(live=True).live
        True
    """
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))
