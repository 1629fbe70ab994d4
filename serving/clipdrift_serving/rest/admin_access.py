"""Who may ask the admin listener. The supervisor of several workers, which loads no model's runtime, asks the same."""

from clipdrift_contract.access.keys import from_basic
from clipdrift_serving.access.authorise import Authorise
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.rest.http import Request, Response, failed

REQUESTS = "/v1/requests/"
"""Below it: what one request was answered, by model and request id."""
_PASSWORD = (b"www-authenticate", b'Basic realm="Clipdrift serving: any name, the admin token as password", charset="UTF-8"')


def refusal_of(request: Request, authorise: Authorise, config: ServingConfig) -> Response | None:
    """The answer to who may not ask for this; None: it may be answered.

    Who only looks may be a browser, which gives the token as a password. An order needs the header, which no browser
    can be led to send.
    """
    if request.path == "/metrics" and not config.metrics_need_token:
        return None
    given, is_look = request.headers.get(b"authorization"), request.method in ("GET", "HEAD")
    headers = {**request.headers, b"authorization": from_basic(given)} if given is not None and is_look else request.headers
    try:
        authorise(headers, "admin", None)
    except RequestError as error:
        answer = failed(error)
        if error.fault != "unauthorized" or not is_look:
            return answer
        others = tuple(one for one in answer.headers if one[0] != _PASSWORD[0])
        return Response(answer.status, answer.body, (*others, _PASSWORD))
    return None
