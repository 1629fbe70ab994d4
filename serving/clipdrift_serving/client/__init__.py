"""The Python client: predictions with their receipts, and labels that go back. Needs httpx, and nothing of a server."""

from clipdrift_serving.client.answers import Feedback, Prediction, RejectedLabel
from clipdrift_serving.client.client import Client
from clipdrift_serving.client.errors import (
    AccessError,
    AnswerError,
    ClientError,
    InvalidRequestError,
    ServerFaultError,
    UnavailableError,
    UnknownModelError,
)
from clipdrift_serving.client.retrying import RetryConfig

__all__ = [
    "AccessError",
    "AnswerError",
    "Client",
    "ClientError",
    "Feedback",
    "InvalidRequestError",
    "Prediction",
    "RejectedLabel",
    "RetryConfig",
    "ServerFaultError",
    "UnavailableError",
    "UnknownModelError",
]
