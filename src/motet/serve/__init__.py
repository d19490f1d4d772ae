"""A model behind HTTP: a JSON API, and one web page for people."""

from motet.errors import missing_extra

try:
    import python_multipart  # noqa: F401  (with which Starlette reads forms)
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    raise missing_extra("serve", str(error.name).replace("_", "-"), "motet serve") from None

from motet.serve.app import make_app
from motet.serve.limits import Limits
from motet.serve.run import serve

__all__ = ["Limits", "make_app", "serve"]
