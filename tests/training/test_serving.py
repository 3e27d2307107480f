"""The server, asked by the `openai` client and by bare HTTP: its answers are those of `generate`, and none is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from transformers import AutoTokenizer, pipeline

from tests.conftest import ROOT
from tests.training import exported, runs
from tests.training.versions import train_tokenizer
from training import TrainingError, decoding, loading, serving
from training.generate import generate
from training.serving import Limits
from training.serving.app import application

GREEDY = {"temperature": 0.0, "top_k": None, "top_p": None, "return_sequences": 1, "seed": 0}
TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'bad' %}{{ raise_exception('no such role') }}{% endif %}\n"
    "    {% if loop.first %}{{ bos_token }}{% endif %}{{ message.role }}: {{ message.content | trim }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


@contextlib.contextmanager
def served(place, limits=None):
    """A server in a thread of this process: (its address, the state of its app)."""
    app = application(loading.load(place, "cpu"), "m", limits or Limits())
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        [listening] = server.servers[0].sockets
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", app.state.server
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def until(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


@pytest.fixture(scope="module", params=["qwen3", "t5"])
def any_writer(request, tmp_path_factory):
    place = exported.folder(tmp_path_factory.mktemp("exported"), request.param)
    with served(place) as (address, _):
        yield place, address


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """With a chat template."""
    place = exported.folder(tmp_path_factory.mktemp("exported"), "qwen3")
    (place / "chat_template.jinja").write_text(TEMPLATE)
    return place


@pytest.fixture(scope="module")
def there(place):
    with served(place) as found:
        yield found


@pytest.fixture
def slow(monkeypatch):
    """A model that takes its time: a token is written each 20 ms."""
    step = decoding.Batch.step

    def slowly(self):
        time.sleep(0.02)
        step(self)

    monkeypatch.setattr(decoding.Batch, "step", slowly)


def client(address):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def counted(address):
    text = httpx.get(f"{address}/metrics").text
    return {
        (sample.name, sample.labels.get("route"), sample.labels.get("status")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def written(place, prompts, new):
    """What `generate` writes, greedily, and how it ended."""
    loaded = loading.load(place, "cpu")
    asked = [loaded.encode(text) for text in prompts]
    found = generate(loaded.model, asked, new_tokens=new, eot=loaded.start, **GREEDY)
    return [(loaded.tokenizer.decode([t for t in tokens if t not in loaded.ends]), len(tokens)) for [tokens] in found]


def test_completions_are_those_of_generate(any_writer):
    place, address = any_writer
    prompts = ["the mill", "磨坊 wheel turns", ""]
    said = client(address).completions.create(model="m", prompt=prompts, max_tokens=12, temperature=0, n=2)
    expected = written(place, prompts, 12)
    assert [c.text for c in said.choices] == [text for text, _ in expected for _ in range(2)]
    assert [c.index for c in said.choices] == list(range(6)) and said.object == "text_completion" and said.model == "m"
    read = sum(len(loading.load(place).encode(text)) for text in prompts)
    assert said.usage.prompt_tokens == read and said.usage.completion_tokens == 2 * sum(n for _, n in expected)
    tokens = [loading.load(place).encode(text) for text in prompts]
    again = client(address).completions.create(model="m", prompt=tokens, max_tokens=12, temperature=0)
    assert [c.text for c in again.choices] == [text for text, _ in expected]


def test_a_stream_is_the_same_text_in_pieces(any_writer):
    _, address = any_writer
    asked = {"model": "m", "prompt": ["the mill", "a"], "max_tokens": 20, "seed": 5, "n": 2}
    whole = client(address).completions.create(**asked)
    pieces, ends, usage = [""] * 4, [None] * 4, None
    chunks = list(client(address).completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces[choice.index] += choice.text
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert pieces == [c.text for c in whole.choices] and ends == [c.finish_reason for c in whole.choices]
    assert usage == whole.usage and len(chunks) > 20 and len(set(pieces)) == 4
    assert client(address).completions.create(**{**asked, "seed": 6}).choices != whole.choices


def test_without_a_seed_texts_differ_and_stop_and_echo_are_heard(there):
    address, _ = there
    ask = {"model": "m", "prompt": "the mill", "max_tokens": 30}
    texts = {client(address).completions.create(**ask).choices[0].text for _ in range(4)}
    assert len(texts) > 1
    plain = client(address).completions.create(**ask, seed=1).choices[0].text
    stop = plain[len(plain) // 2 :][:2]
    said = client(address).completions.create(**ask, seed=1, stop=[stop, "never"], echo=True).choices[0]
    assert said.text == "the mill" + plain.partition(stop)[0] and said.finish_reason == "stop"
    streamed = list(client(address).completions.create(**ask, seed=1, stop=stop, echo=True, stream=True))
    assert "".join(chunk.choices[0].text for chunk in streamed) == said.text
    more = {"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.0}
    first = client(address).completions.create(**ask, extra_body=more).choices[0].text
    assert first == client(address).completions.create(**ask, temperature=0).choices[0].text


def test_a_chat_is_what_transformers_makes_of_its_messages(place, there):
    address, _ = there
    messages = [{"role": "system", "content": " be brief "}, {"role": "user", "content": "the mill"}]
    text = AutoTokenizer.from_pretrained(place).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    expected, count = written(place, [text], 12)[0]
    asked = {"model": "m", "messages": messages, "temperature": 0}
    said = client(address).chat.completions.create(**asked, max_completion_tokens=12)
    assert said.choices[0].message.content == expected and said.choices[0].message.role == "assistant"
    assert said.usage.completion_tokens == count and said.object == "chat.completion"
    chunks = list(client(address).chat.completions.create(**asked, max_tokens=12, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected
    assert [c.choices[0].delta.role for c in chunks] == ["assistant", *[None] * (len(chunks) - 1)]
    assert chunks[-1].choices[0].finish_reason == said.choices[0].finish_reason
    whole = client(address).chat.completions.create(**asked)
    assert whole.usage.total_tokens == 128 or whole.choices[0].finish_reason == "stop"
    parts = [{"role": "user", "content": [{"type": "text", "text": "the"}, {"type": "text", "text": " mill"}]}]
    assert client(address).chat.completions.create(**{**asked, "messages": parts}, max_tokens=3).usage.prompt_tokens
    with pytest.raises(openai.BadRequestError, match="the chat template cannot take these messages: no such role"):
        client(address).chat.completions.create(model="m", messages=[{"role": "bad", "content": "a"}])


def test_a_tokenizer_without_a_chat_template_takes_no_messages(any_writer):
    with pytest.raises(openai.BadRequestError) as refused:
        client(any_writer[1]).chat.completions.create(model="m", messages=[{"role": "user", "content": "a"}])
    assert refused.value.code == "no_chat_template" and "use /v1/completions" in refused.value.message


@pytest.mark.parametrize(
    ("change", "status", "param", "code", "said"),
    [
        ({"model": "other"}, 404, "model", "model_not_found", "'other' does not exist here; this server has 'm'"),
        ({"prompt": None}, 400, "prompt", "invalid_value", "wrong kind"),
        ({"prompt": []}, 400, "prompt", "invalid_value", "holds no prompt"),
        ({"prompt": [[]]}, 400, "prompt", "invalid_value", "has no tokens"),
        ({"prompt": [[99999]]}, 400, "prompt", "invalid_value", "outside [0, "),
        ({"prompt": "the mill " * 99}, 400, "prompt", "context_length_exceeded", "context is 128"),
        ({"prompt": "the mill " * 400_000}, 400, "prompt", "context_length_exceeded", "at least"),
        ({"max_tokens": 400}, 400, "prompt", "context_length_exceeded", "ask for at most"),
        ({"max_tokens": 0}, 400, "max_tokens", "invalid_value", "greater than or equal to 1 (got 0)"),
        ({"temperature": "hot"}, 400, "temperature", "invalid_value", "(got 'hot')"),
        ({"top_p": 1.5}, 400, "top_p", "invalid_value", "less than or equal to 1"),
        ({"topk": 3}, 400, "topk", "unknown", "known are: best_of"),
        ({"logprobs": 3}, 400, "logprobs", "unsupported", "not offered here; leave it out"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty", "unsupported", "not offered"),
        ({"stop": ["a"] * 17}, 400, "stop", "invalid_value", "wrong kind"),
        ({"n": 0}, 400, "n", "invalid_value", "greater than or equal to 1"),
        ({"stream_options": {"x": 1}}, 400, "stream_options", "invalid_value", "Extra inputs"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_the_words_of_openai(there, change, status, param, code, said):
    address, _ = there
    body = {"model": "m", "prompt": "the mill", "max_tokens": 3, **change}
    answer = httpx.post(f"{address}/v1/completions", json=body, timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code), error
    assert said in error["message"] and error["type"] == "invalid_request_error" and len(error["message"]) < 500


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"[1]", "no JSON object"),
        (b'{"model": "m", "prompt": "\xff"}', "not JSON"),
        (b'{"model": "m", "prompt": "\\ud800"}', "not JSON"),
        (b'{"prompt": "a"}', "Missing parameter 'model'"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_broken_body_is_refused(there, content, said):
    for route in ("completions", "chat/completions", "classify"):
        answer = httpx.post(f"{there[0]}/v1/{route}", content=content)
        assert answer.status_code == 400 and said in answer.json()["error"]["message"]


def test_a_body_beyond_the_limit_is_not_read(place):
    with served(place, Limits(body=1000)) as (address, _):
        for content in (b"a" * 1001, (b"a" * 100 for _ in range(11))):  # announced, and in chunks
            answer = httpx.post(f"{address}/v1/completions", content=content)
            assert answer.status_code == 413 and answer.json()["error"]["code"] == "body_too_large"
        body = json.dumps({"model": "m", "prompt": "a", "max_tokens": 1}).ljust(1000)
        assert httpx.post(f"{address}/v1/completions", content=body).status_code == 200
        assert counted(address)["gristmill_requests_total", "completions", "413"] == 2


def test_what_is_not_there_is_told_as_an_error_too(there):
    address, _ = there
    for method, path, status in (("GET", "/v1/completions", 405), ("POST", "/v1/nothing", 404), ("GET", "/", 404)):
        answer = httpx.request(method, address + path)
        assert answer.status_code == status and path in answer.json()["error"]["message"]
    assert client(address).models.retrieve("m").max_model_len == 128
    assert [model.id for model in client(address).models.list()] == ["m"]
    with pytest.raises(openai.NotFoundError, match="does not exist here"):
        client(address).models.retrieve("other")
    with pytest.raises(openai.BadRequestError, match="writes texts and has no classes"):
        client(address).post("/classify", body={"model": "m", "input": "a"}, cast_to=object)


def test_two_hundred_at_once_are_all_answered_as_if_alone(there, place):
    """Of several lengths, streamed and whole, far more than are written side by side."""
    address, _ = there
    prompts = [f"the {'mill ' * (n % 9)}{n}" for n in range(200)]
    before = counted(address)

    async def ask(http, number):
        body = {"model": "m", "prompt": prompts[number], "max_tokens": 4 + number % 13, "temperature": 0}
        if number % 2:
            return (await http.post("/v1/completions", json=body)).json()["choices"][0]["text"]
        async with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
            lines = [line.removeprefix("data: ") async for line in answer.aiter_lines() if line]
        assert lines.pop() == "[DONE]"
        return "".join(json.loads(line)["choices"][0]["text"] for line in lines)

    async def everything():
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as http:
            return await asyncio.gather(*(ask(http, number) for number in range(200)))

    said = asyncio.run(everything())
    loaded = loading.load(place, "cpu")
    for number, text in enumerate(said):
        [[tokens]] = generate(
            loaded.model, [loaded.encode(prompts[number])], new_tokens=4 + number % 13, eot=loaded.start, **GREEDY
        )
        assert text == loaded.tokenizer.decode([t for t in tokens if t not in loaded.ends]), number
    after, key = counted(address), ("gristmill_requests_total", "completions", "200")
    assert after[key] - before.get(key, 0) == 200
    assert after["gristmill_running", None, None] == after["gristmill_waiting", None, None] == 0


def test_a_client_that_leaves_is_written_no_further(place, slow):
    """In mid-stream, while it waits for the whole, and while it has not begun."""
    with served(place, Limits(batch=1)) as (address, server), httpx.Client(base_url=address, timeout=0.3) as http:
        body = {"model": "m", "prompt": "the mill", "max_tokens": 120, "temperature": 0}
        with http.stream("POST", "/v1/completions", json={**body, "stream": True}, timeout=9) as answer:
            lines = answer.iter_lines()
            next(lines)
            assert server.engine.running == 1
            with pytest.raises(httpx.ReadTimeout):  # waits behind it
                http.post("/v1/completions", json=body)
            until(lambda: server.engine.waiting == 1, 3)
        until(lambda: server.engine.running == 0 and server.engine.waiting == 0, 2)
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/completions", json=body)
        until(lambda: server.engine.running == 0, 2)
        until(lambda: counted(address).get(("gristmill_requests_total", "completions", "499")) == 3, 3)
        assert counted(address)["gristmill_generated_tokens_total", None, None] < 120
        assert httpx.post(f"{address}/v1/completions", json={**body, "max_tokens": 2}).status_code == 200


def test_what_is_more_than_may_wait_is_sent_away(place, slow):
    with served(place, Limits(batch=1, queue=2, max_tokens=50)) as (address, server):
        body = {"model": "m", "prompt": "the mill", "max_tokens": 30, "seed": 3}
        with ThreadPoolExecutor(3) as threads:
            first = threads.submit(httpx.post, f"{address}/v1/completions", json=body, timeout=60)
            until(lambda: server.engine.running == 1)
            others = [threads.submit(httpx.post, f"{address}/v1/completions", json=body, timeout=60) for _ in range(2)]
            until(lambda: server.engine.waiting == 2)
            answer = httpx.post(f"{address}/v1/completions", json=body)
            assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["type"] == "rate_limit_exceeded"
            texts = [each.result().json()["choices"][0]["text"] for each in (first, *others)]
        assert len(set(texts)) == 1
        answer = httpx.post(f"{address}/v1/completions", json={**body, "n": 3})
        assert answer.status_code == 400 and "3 texts are asked for at once" in answer.json()["error"]["message"]
        answer = httpx.post(f"{address}/v1/completions", json={**body, "max_tokens": 51})
        assert answer.status_code == 400 and "above 50, the most" in answer.json()["error"]["message"]


def test_a_batch_that_breaks_is_told_and_the_next_is_written(place, monkeypatch):
    with served(place) as (address, _):
        ask = {"model": "m", "prompt": "the mill", "max_tokens": 5, "temperature": 0}  # what is drawn may end at once
        with monkeypatch.context() as patch:
            patch.setattr(decoding.Batch, "step", lambda self: 1 / 0)
            with pytest.raises(openai.InternalServerError, match="The model failed on this request"):
                client(address).completions.create(**ask)
            with pytest.raises(openai.APIError, match="The model failed on this request"):
                list(client(address).completions.create(**ask, stream=True))
        assert client(address).completions.create(**ask).usage.completion_tokens
        assert counted(address)["gristmill_requests_total", "completions", "500"] == 2
        assert httpx.get(f"{address}/health").json() == {"status": "ok", "model": "m", "running": 0, "waiting": 0}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "Missing parameter 'input'"),
    ({"input": []}, "Parameter 'input'"),
    ({"input": 5}, "Parameter 'input'"),
    ({"input": ["a", None]}, "Parameter 'input'"),
    ({"input": ["a"] * 2049}, "Parameter 'input'"),
    ({"input": "the mill " * 400_000}, "has at least"),
    ({"input": "a", "inputs": "b"}, "Unknown parameter 'inputs'"),
]


@pytest.mark.parametrize("family", ["gpt", "bert", "modernbert", "t5"])
def test_a_classifier_answers_as_the_pipeline_of_transformers(tmp_path, family, training_version):
    """The tokenizer is one that reads lower case: a text in capitals is the same text."""
    changes = ('objective.use="classify"', f'model.family="{family}"')
    done = runs.fit(runs.write_run(tmp_path / "run"), training_version, tmp_path / "runs", changes=changes)
    runs.command(1, "export", str(done.folder), str(tmp_path / "hf"))
    texts = ["the mill wheel turns", "THAT river", "flour into"]
    theirs = pipeline("text-classification", str(tmp_path / "hf"), top_k=None)(texts)
    for folder in (done.folder, tmp_path / "hf"):
        with served(folder) as (address, _):
            said = httpx.post(f"{address}/v1/classify", json={"model": "m", "input": texts}).json()
            for entry, expected in zip(said["data"], theirs, strict=True):
                scores = {each["label"]: each["score"] for each in expected}
                assert entry["label"] == max(scores, key=scores.get) and entry["num_classes"] == 3
                assert all(abs(entry["scores"][label] - score) < 1e-5 for label, score in scores.items())
            one = httpx.post(f"{address}/v1/classify", json={"model": "m", "input": texts[1]}).json()["data"]
            assert one[0]["label"] == said["data"][1]["label"]
            small = httpx.post(f"{address}/v1/classify", json={"model": "m", "input": texts[1].lower()}).json()["data"]
            assert small == one
            answer = httpx.post(f"{address}/v1/classify", json={"model": "m", "input": "the mill " * 99}).json()
            assert answer["error"]["code"] == "context_length_exceeded"
            empty = httpx.post(f"{address}/v1/classify", json={"model": "m", "input": ["", texts[0]]}).json()["data"]
            assert sum(empty[0]["scores"].values()) == pytest.approx(1) and empty[1]["scores"] == pytest.approx(
                said["data"][0]["scores"], abs=1e-5
            )
            for given, words in WRONG:
                answer = httpx.post(f"{address}/v1/classify", json={"model": "m", **given})
                assert answer.status_code == 400 and words in answer.json()["error"]["message"], answer.text
            with pytest.raises(openai.BadRequestError, match="names the class of a text and continues none"):
                client(address).completions.create(model="m", prompt="a")


@pytest.fixture(scope="module")
def training_version(tmp_path_factory):
    lower = train_tokenizer(["The Mill wheel turns. That river Turns the stone."] * 9, 300, lowercase=True)
    return runs.version(tmp_path_factory.mktemp("examples") / "v", layout="examples", tokenizer=lower)


def test_stopping_finishes_what_runs_and_what_waits(tmp_path):
    """A process, SIGTERM in the middle of a stream: the stream and who waits are written to their ends."""
    place = exported.folder(tmp_path, "gpt2", length=4096)
    command = [sys.executable, "-P", "-m", "training", "serve", str(place), "--port", "0", "--batch", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        address = re.search(r"serving gpt2 at (http://\S+)/v1", process.stdout.readline())[1]
        body = {"model": "gpt2", "prompt": "the mill", "max_tokens": 1500, "temperature": 0, "stream": True}
        with ThreadPoolExecutor(1) as threads, httpx.stream("POST", f"{address}/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            waits = {**body, "stream": False, "max_tokens": 3}
            behind = threads.submit(httpx.post, f"{address}/v1/completions", json=waits, timeout=120)
            until(lambda: httpx.get(f"{address}/health").json()["waiting"] == 1)
            process.send_signal(signal.SIGTERM)
            until(lambda: refused(address))
            assert process.poll() is None, "it still writes"
            assert [line for line in lines if line][-1] == "data: [DONE]"
            assert behind.result().json()["usage"]["completion_tokens"] == 3
        assert process.wait(30) == 0
    finally:
        process.kill()


def refused(address):
    """Nobody listens there any more, or whoever was reached in that moment has hung up without a word."""
    try:
        httpx.get(f"{address}/health")
    except (httpx.ConnectError, httpx.RemoteProtocolError):
        return True
    return False


def test_what_keeps_a_server_from_beginning_is_one_sentence(tmp_path, place, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TrainingError, match=rf"127\.0\.0\.1:{port}: cannot listen there .*; give another --port"):
            serving.serve(place, "127.0.0.1", port, None, Limits())
    with pytest.raises(TrainingError, match="is here; gristmill ls lists"):
        serving.serve(tmp_path, "127.0.0.1", 0, None, Limits())
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(TrainingError, match=r"serve needs prometheus_client: pip install 'gristmill\[serve\]'"):
        serving.serve(place, "127.0.0.1", 0, None, Limits())
