"""The routes: a body is read up to its limit, checked, turned into work for the engine, and answered.

A client that goes away is noticed at the next piece of a stream, or within a second, and its work is given up.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from training.loading import Loaded
from training.serving import Limits, asking
from training.serving.answers import Form
from training.serving.engine import FAILED, Engine, Full, Part, Text
from training.serving.metrics import Metrics
from training.serving.protocol import Asking, Chat, Classify, Completion, Refusal, read

LOOK = 0.5  # seconds between two looks whether a client that waits is still there
GONE = 499  # the client left, in the logs of those who answer
DONE = "data: [DONE]\n\n"


class Gone(Exception):
    """Nobody waits for the answer."""


class Work:
    """A request at the engine: what the engine's thread tells is heard in the loop of the server."""

    def __init__(self, server: Server, route: str) -> None:
        self.server, self.route, self.began = server, route, time.perf_counter()
        self.items: Sequence[Part] | Sequence[Text] = []
        self._loop, self._heard = asyncio.get_running_loop(), asyncio.Queue[tuple[Any, ...]]()
        self._first = True

    def tell(self, *event: Any) -> None:
        """From any thread."""
        with suppress(RuntimeError):  # the loop is closed: the server was killed
            self._loop.call_soon_threadsafe(self._heard.put_nowait, event)

    def begin(self, items: Sequence[Part] | Sequence[Text]) -> None:
        """Give it to the engine. Raises Refusal where too much waits."""
        self.items = items
        try:
            self.server.engine.ask(items)
        except Full:
            raise Refusal(
                429,
                f"Too many requests wait here (at most {self.server.limits.queue} texts); try again later",
                code="queue_full",
                kind="rate_limit_exceeded",
            ) from None

    async def next(self, request: Request | None = None) -> tuple[Any, ...]:
        """What the engine says next. Raises Gone where the client of a request that waits has left."""
        while True:
            try:
                event = await asyncio.wait_for(self._heard.get(), LOOK if request else None)
            except TimeoutError:
                assert request is not None
                if await request.is_disconnected():
                    raise Gone from None
                continue
            if self._first:
                self.server.metrics.first.observe(time.perf_counter() - self.began)
                self._first = False
            return event

    def end(self, status: int) -> None:
        """Count it, and have whatever still runs of it given up."""
        for item in self.items:
            item.gone = True
        metrics = self.server.metrics
        metrics.requests.labels(self.route, str(status)).inc()
        metrics.seconds.labels(self.route).observe(time.perf_counter() - self.began)
        written = [item.writing for item in self.items if isinstance(item, Part)]
        metrics.written.inc(sum(len(writing.tokens) for writing in written))


class Server:
    """What the routes share."""

    def __init__(self, loaded: Loaded, name: str, limits: Limits) -> None:
        self.loaded, self.name, self.limits = loaded, name, limits
        self.engine = Engine(loaded, limits.batch, limits.queue)
        self.metrics = Metrics(self.engine)
        self.created = int(time.time())

    async def body(self, request: Request) -> bytes:
        """The bytes of a request. Raises Refusal beyond the limit, before they are read where they are announced."""
        most, found = self.limits.body, bytearray()
        announced = request.headers.get("content-length", "")
        too_large = Refusal(413, f"The body is above {most:,} bytes, the most that is read here", code="body_too_large")
        if announced.isdigit() and int(announced) > most:
            raise too_large
        async for chunk in request.stream():
            found += chunk
            if len(found) > most:
                raise too_large
        return bytes(found)

    def known(self, name: str) -> None:
        """Raises Refusal where another model is asked for."""
        if name != self.name:
            said = f"The model '{name}' does not exist here; this server has '{self.name}'"
            raise Refusal(404, said, param="model", code="model_not_found")

    def card(self) -> dict[str, Any]:
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "gristmill",
            "max_model_len": self.loaded.model.length,
        }

    async def counted(self, route: str, answer: Callable[[Work], Awaitable[Response]]) -> Response:
        """Have a request answered; what refuses it is counted, too. A stream counts itself, at its end."""
        work = Work(self, route)
        try:
            response = await answer(work)
        except Refusal as refusal:
            work.end(refusal.status)
            raise
        except (Gone, ClientDisconnect):
            work.end(GONE)
            return Response(status_code=GONE)
        except BaseException:
            work.end(500)
            raise
        if not isinstance(response, StreamingResponse):
            work.end(response.status_code)
        return response

    async def write(self, request: Request, work: Work, body: Asking, prompts: list[asking.Prompt]) -> Response:
        """Answer a completion or a chat."""
        chat = isinstance(body, Chat)
        most = (body.max_completion_tokens or body.max_tokens) if isinstance(body, Chat) else body.max_tokens
        parts = await run_in_threadpool(asking.parts, self.loaded, prompts, body, self.limits, most, work.tell)
        work.begin(parts)
        self.metrics.prompt.inc(sum(len(prompt.tokens) for prompt in prompts))
        echoed = [prompt.text for prompt in prompts] if isinstance(body, Completion) and body.echo else None
        form = Form(self.name, chat, parts, echoed, body.n or 1, sum(len(prompt.tokens) for prompt in prompts))
        if body.stream:
            usage = bool(body.stream_options and body.stream_options.include_usage)
            return StreamingResponse(_events(work, form, usage), media_type="text/event-stream")
        texts, ends = [""] * len(parts), [""] * len(parts)
        for _ in parts:
            part, text, ended = await work.next(request)
            if ended == FAILED:
                raise Refusal(500, "The model failed on this request", code="failed")
            texts[form.number[part]], ends[form.number[part]] = text, ended
        return JSONResponse(form.whole(texts, ends))

    async def classify(self, request: Request, work: Work, body: Classify) -> Response:
        """Answer with the class of each text."""
        tokens = await run_in_threadpool(asking.texts, self.loaded, body, self.name)
        if len(tokens) > self.limits.queue:
            said = f"{len(tokens)} texts are given at once, and this server takes {self.limits.queue}"
            raise Refusal(400, said, param="input", code="invalid_value")
        work.begin(asking.items(tokens, work.tell))
        read_ = sum(map(len, tokens))
        self.metrics.prompt.inc(read_)
        found: dict[int, list[float]] = {}
        for _ in tokens:
            number, probabilities = await work.next(request)
            if probabilities is None:
                raise Refusal(500, "The model failed on this request", code="failed")
            found[number] = probabilities
        assert self.loaded.classifier is not None
        labels = self.loaded.classifier.labels
        data = [
            {"index": n, "label": labels[max(range(len(p)), key=p.__getitem__)], "probs": p, "num_classes": len(p)}
            | {"scores": dict(zip(labels, p, strict=True))}
            for n, p in sorted(found.items())
        ]
        usage = {"prompt_tokens": read_, "completion_tokens": 0, "total_tokens": read_}
        head = {"id": f"classify-{uuid.uuid4().hex}", "object": "list", "created": int(time.time()), "model": self.name}
        return JSONResponse({**head, "data": data, "usage": usage})


async def _events(work: Work, form: Form, usage: bool) -> AsyncIterator[str]:
    """Server-sent events. Left early by a client, it gives the work up."""
    status, begun, left = GONE, set[int](), len(work.items)
    try:
        while left:
            part, text, ended = await work.next()
            if ended == FAILED:
                status = 500
                yield _event(Refusal(500, "The model failed on this request", code="failed").body())
                return
            number = form.number[part]
            yield _event(form.chunk(number, text, ended, number not in begun))
            begun.add(number)
            left -= ended is not None
        if usage:
            yield _event(form.last())
        yield DONE
        status = 200
    finally:
        work.end(status)


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def application(loaded: Loaded, name: str, limits: Limits) -> FastAPI:
    """The server of one model."""
    server = Server(loaded, name, limits)

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        server.engine.start()
        yield
        server.engine.close()
        await asyncio.to_thread(server.engine.join)

    app = FastAPI(title="Gristmill", lifespan=living, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.server = server

    async def written(request: Request, what: str, form: type[Any], plan: Callable[[Any], Any]) -> Response:
        async def answer(work: Work) -> Response:
            body = read(form, await server.body(request))
            server.known(body.model)
            return await server.write(request, work, body, await run_in_threadpool(plan, body))

        return await server.counted(what, answer)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await written(request, "completions", Completion, lambda body: asking.completion(loaded, body))

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await written(request, "chat", Chat, lambda body: asking.dialogue(loaded, body, name))

    @app.post("/v1/classify")
    async def classify(request: Request) -> Response:
        async def answer(work: Work) -> Response:
            body = read(Classify, await server.body(request))
            server.known(body.model)
            return await server.classify(request, work, body)

        return await server.counted("classify", answer)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [server.card()]}

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        server.known(model)
        return server.card()

    @app.get("/health")
    async def health() -> Response:
        alive = server.engine.is_alive()
        said = {"status": "ok" if alive else "stopped", "model": name}
        said |= {"running": server.engine.running, "waiting": server.engine.waiting}  # type: ignore[dict-item]
        return JSONResponse(said, 200 if alive else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        text, kind = server.metrics.text()
        return Response(text, headers={"content-type": kind})

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return JSONResponse(error.body(), error.status, {"retry-after": "1"} if error.status == 429 else None)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        said = f"{request.method} {request.url.path}: {error.detail}"
        return JSONResponse(Refusal(error.status_code, said).body(), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return JSONResponse(Refusal(500, "The server failed on this request; its log says how").body(), 500)

    return app
