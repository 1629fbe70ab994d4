"""The Open Inference Protocol over HTTP, as a raw ASGI application; and the admin listener beside it."""
