"""MONAI Label's web application with requests that are checked first; the server is started with ``web:app``.

- What a client names is looked up, never opened: an unknown image, label or session is status 404 with a sentence.
- A mistake in a request, or in what it leads to, is its sentence, where MONAI Label answers "Internal Server Error".
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import torch
from fastapi.responses import JSONResponse
from monailabel.app import app
from monailabel.endpoints import datastore, infer
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.others.generic import device_list

from kvseg_monai.errors import InputError
from kvseg_monai.label.app import SENT_FILE
from kvseg_monai.label.requests import NotFoundError, background_readers, cleaned, parse_options, refuse_name, status_of
from kvseg_monai.label.studies import require_image

UPLOADS = ("/datastore", "/datastore/image")
KEPT = ("model", "method", "images")  # of a task in the background, which the address of the request names
TASKS = {"train": "_trainers", "batch_infer": "_infers", "scoring": "_scoring_methods"}


def _answer(mistake: InputError) -> JSONResponse:
    return JSONResponse({"detail": str(mistake)}, status_of(mistake))


def _answer_label(error: MONAILabelException) -> JSONResponse:
    """Answer what MONAI Label itself refuses, such as a model that is not there."""
    refused = error.error in (MONAILabelError.INVALID_INPUT, MONAILabelError.APP_INIT_ERROR, MONAILabelError.APP_ERROR)
    return JSONResponse({"detail": error.msg}, 404 if refused else 500)


app.add_exception_handler(InputError, lambda request, mistake: _answer(mistake))
app.add_exception_handler(MONAILabelException, lambda request, error: _answer_label(error))


class KnownNames:
    """Middleware that refuses a request whose address names what is not there, or a path."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Answer with status 404, or pass on."""
        answer = self.app
        if scope["type"] == "http":
            try:
                _refuse_unknown(scope["method"], scope["path"], parse_qs(scope["query_string"].decode("latin-1"), True))
            except InputError as mistake:
                answer = _answer(mistake)
        await answer(scope, receive, send)


app.add_middleware(KnownNames)


def _refuse_unknown(method: str, path: str, query: Mapping[str, list[str]]) -> None:
    path = path.rstrip("/")
    if not path.startswith("/datastore"):  # inference sees to it in the place of its own, since a file may come along
        return
    for tag in query.get("tag", ()):
        if tag:  # empty is the default, final
            refuse_name(tag, "tag")
    upload = method == "PUT" and path in UPLOADS
    for what in ("image", "label", "id"):
        for name in query.get(what, ()):
            if not upload:
                require_image(app_instance().datastore(), name)
            elif name:  # empty is the file's name
                refuse_name(name, "image")


_run_inference = infer.run_inference


def run_inference(
    background_tasks: Any,
    model: str,
    image: str = "",
    session_id: str = "",
    params: str = "{}",
    file: Any = None,
    label: Any = None,
    output: Any = None,
) -> Any:
    """Do what MONAI Label does, with an image that was looked up, or a file that came with the request or its session.

    Raises:
        NotFoundError: there is no such image or session.
        InputError: the params are no options.
    """
    options = parse_options(params)
    image = cleaned(options, {"image": refuse_name}).get("image", image)
    for name in ("image", "label", "session", "model"):  # MONAI Label would take paths from these
        options.pop(name, None)
    sent = bool(file or session_id)
    if session_id:
        _require_session(session_id)
    if not sent or (label and str(label.filename).endswith(".bin")):  # scribbles, drawn on the image
        require_image(app_instance().datastore(), image)
    token = SENT_FILE.set(sent)
    try:
        return _run_inference(background_tasks, model, image, session_id, json.dumps(options), file, label, output)
    finally:
        SENT_FILE.reset(token)


def _require_session(name: str) -> None:
    refuse_name(name, "session")
    sessions = app_instance().sessions()
    found = None
    with suppress(ValueError, OSError):
        found = sessions and sessions.get_session(name)
    if not found:
        raise NotFoundError(f"there is no session {name!r}, or it has expired; send the image again")


_run_task = AsyncTask.run


def run_task(
    method: str,
    request: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    force_sync: bool = False,
    enqueue: bool = False,
) -> Any:
    """Start a training, a batch or a scoring with options that were checked.

    Raises:
        NotFoundError: there is no such model, or none that can do this.
        InputError: an option has a value that is not allowed.
    """
    named = dict(request or {})
    wanted = named.get("method") if method == "scoring" else named.get("model")
    known = getattr(app_instance(), TASKS[method])
    if wanted not in known:
        raise NotFoundError(f"there is no model {wanted!r} for {method}; there is {', '.join(known) or 'none'}")
    options = cleaned({**named, **(params or {})}, background_readers(method, device_list()))
    for name in options["images"] if isinstance(options.get("images"), list) else ():
        require_image(app_instance().datastore(), name)
    if not torch.cuda.is_available():
        options["multi_gpu"] = False  # MONAI Label would look for the first of none
    fixed = {name: named[name] for name in KEPT if name in named}
    return _run_task(method, {**fixed, **options}, None, force_sync, enqueue)


# MONAI Label looks these up by name where it uses them; its routes stay as they are.
infer.run_inference = run_inference
AsyncTask.run = staticmethod(run_task)
datastore.json = SimpleNamespace(loads=parse_options)
