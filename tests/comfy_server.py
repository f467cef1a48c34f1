"""Start a real ComfyUI with the pack in it, queue prompts (API format) to it, and see what happened.

with ComfyServer(find_or_make_host(), tmp_path) as comfy:
    run = comfy.queue({"1": {"class_type": "EmptyImage", "inputs": {...}}, "2": ...})
    run.executed, run.cached, run.progress, run.previews, comfy.output_files(run)
"""

import contextlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import websocket
from comfy_host import REPOSITORY, Host

START_TIMEOUT = 300.0  # seconds
RUN_TIMEOUT = 300.0


class ServerFailed(RuntimeError):
    """The server did not start, did not load the pack, or died; the message ends with its log."""


class PromptRejected(RuntimeError):
    """The server refused to queue the prompt. `error` and `node_errors` are its JSON answer."""

    def __init__(self, answer: dict[str, Any]):
        super().__init__(json.dumps(answer, indent=1))
        self.error: dict[str, Any] = answer.get("error", {})
        self.node_errors: dict[str, Any] = answer.get("node_errors", {})


class PromptFailed(RuntimeError):
    """A node raised an exception."""

    def __init__(self, error: dict[str, Any]):
        self.node_id: str = error["node_id"]
        self.node_type: str = error["node_type"]
        self.exception_type: str = error["exception_type"]
        self.exception_message: str = error["exception_message"]
        self.traceback = "".join(error["traceback"])
        what = f"{self.exception_type}: {self.exception_message}"
        super().__init__(f"{self.node_type} ({self.node_id}): {what}\n{self.traceback}")


class PromptInterrupted(RuntimeError):
    """The prompt was interrupted; `node_id` was running."""

    def __init__(self, message: dict[str, Any]):
        super().__init__(f"Interrupted in {message['node_type']} ({message['node_id']})")
        self.node_id: str = message["node_id"]


@dataclass
class Run:
    """What is known of one queued prompt; node ids are the prompt's, or an expanded node's own."""

    prompt_id: str
    executed: list[str] = field(default_factory=list)  # nodes that were started, in order
    cached: list[str] = field(default_factory=list)  # nodes whose result was taken from the cache
    progress: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # node → (value, maximum), in order
    previews: list[bytes] = field(default_factory=list)  # JPEG or PNG files
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # everything: (type, data)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)  # output node → its UI results, after wait()
    finished: bool = False


class Handle:
    """A queued prompt that may still be running."""

    def __init__(self, server: "ComfyServer", connection: websocket.WebSocket, prompt_id: str):
        self.run = Run(prompt_id)
        self._server, self._connection = server, connection

    def wait(self, timeout: float = RUN_TIMEOUT) -> Run:
        """Return the finished run; raises PromptFailed, PromptInterrupted, ServerFailed or TimeoutError."""
        self.wait_until(lambda run: run.finished, timeout)
        self._connection.close()
        self.run.outputs = self._server.history(self.run.prompt_id)["outputs"]
        for kind, data in self.run.messages:
            if kind == "execution_error":
                raise PromptFailed(data)
            if kind == "execution_interrupted":
                raise PromptInterrupted(data)
        return self.run

    def wait_until(self, condition: Callable[[Run], bool], timeout: float = RUN_TIMEOUT) -> Run:
        """Read the server's messages until the condition holds, e.g. `lambda run: "7" in run.executed`."""
        deadline = time.monotonic() + timeout
        while not condition(self.run):
            if self.run.finished:
                raise RuntimeError(f"The run has ended without that: {self.run}")
            if (remaining := deadline - time.monotonic()) <= 0:
                raise TimeoutError(f"Waited {timeout:.0f} s, so far {self.run}\n{self._server.log_tail()}")
            self._connection.settimeout(min(remaining, 5))
            try:
                self._note(self._connection.recv())
            except websocket.WebSocketTimeoutException:
                self._server.check_alive()
            except (websocket.WebSocketException, OSError) as problem:
                raise ServerFailed(f"Lost the connection: {problem}\n{self._server.log_tail()}") from problem
        return self.run

    def _note(self, frame: str | bytes) -> None:
        run = self.run
        if not frame:
            raise websocket.WebSocketConnectionClosedException("closed by the server")
        if isinstance(frame, bytes):
            if struct.unpack(">I", frame[:4]) == (1,):  # a preview: uint32 1, uint32 image format, the file
                run.previews.append(frame[8:])
            return
        message = json.loads(frame)
        kind, data = message["type"], message["data"]
        if data.get("prompt_id") != run.prompt_id:
            return
        run.messages.append((kind, data))
        if kind == "executing" and data["node"] is None:
            run.finished = True
        elif kind == "executing":
            run.executed.append(data["node"])
        elif kind == "execution_cached":
            run.cached.extend(data["nodes"])
        elif kind == "progress":
            run.progress.setdefault(data["node"], []).append((data["value"], data["max"]))


class ComfyServer:
    """A ComfyUI process on a free local port, with its own base folder; use it as a context manager.

    Args:
        host: The ComfyUI to run.
        base: Base folder; models/, input/, … are made in it. Model files may be added before or after the start.
        pack: The node pack to load, linked into custom_nodes/.
        extra_args: More arguments of ComfyUI's main.py, e.g. `["--preview-method", "latent2rgb"]`.
        cpu: Run without a GPU.

    Raises:
        ServerFailed: On entering, if the server dies or the pack cannot be imported.
    """

    def __init__(
        self, host: Host, base: Path, pack: Path = REPOSITORY, extra_args: Sequence[str] = (), cpu: bool = True
    ):
        self.base = base.absolute()
        for folder in ("custom_nodes", "models", "input", "output", "temp", "user"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        _link(pack.absolute(), self.base / "custom_nodes" / "unianimate")
        self.log_file = self.base / "server.log"
        self.address = f"127.0.0.1:{_free_port()}"
        listen = ["--listen", "127.0.0.1", "--port", self.address.rpartition(":")[2]]
        private = ["--base-directory", str(self.base), "--database-url", "sqlite:///:memory:", "--disable-api-nodes"]
        device = ["--cpu"] if cpu else []
        self._command = [str(host.python), str(host.comfyui / "main.py"), *listen, *private, *device, *extra_args]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "ComfyServer":
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        environment |= {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.base, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_for_start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and every process that it started."""
        if self._process is None:
            return
        processes: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            server = psutil.Process(self._process.pid)
            processes = [server, *server.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(processes, timeout=10)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        self._process = None

    def queue(self, prompt: dict[str, Any], timeout: float = RUN_TIMEOUT, **extra_data: Any) -> Run:
        """Run a prompt to its end; raises what `start` and `Handle.wait` raise."""
        return self.start(prompt, **extra_data).wait(timeout)

    def start(self, prompt: dict[str, Any], **extra_data: Any) -> Handle:
        """Queue a prompt and return at once.

        Args:
            prompt: Node id → {"class_type": …, "inputs": …}, a link being [node id, output index].
            extra_data: The request's extra_data, e.g. `preview_method="latent2rgb"`.

        Raises:
            PromptRejected: If the server finds the prompt invalid, be it only for some of its output nodes.
        """
        client = uuid.uuid4().hex
        url = f"ws://{self.address}/ws?clientId={client}"
        connection = websocket.create_connection(url, timeout=30, http_no_proxy=["127.0.0.1"])
        try:
            connection.recv()  # its greeting: from now on the server tells us what happens
            answer = self._request("/prompt", {"prompt": prompt, "client_id": client, "extra_data": extra_data})
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read())
        if answer["node_errors"] or "prompt_id" not in answer:
            connection.close()
            raise PromptRejected(answer)
        return Handle(self, connection, answer["prompt_id"])

    def interrupt(self) -> None:
        self._request("/interrupt", {})

    def free(self, unload: bool = True) -> None:
        """Forget cached results and, if `unload`, models; the server does so a moment later, when it is idle."""
        self._request("/free", {"unload_models": unload, "free_memory": True})

    def history(self, prompt_id: str) -> dict[str, Any]:
        return self._request(f"/history/{prompt_id}")[prompt_id]

    def object_info(self, node: str | None = None) -> dict[str, Any]:
        """All nodes' descriptions, or one node's (KeyError if there is no such node)."""
        return self._request("/object_info") if node is None else self._request(f"/object_info/{node}")[node]

    def put_input(self, name: str, content: bytes | Path) -> str:
        """Put a file in the input folder; returns the name to give to a Load… node."""
        data = content if isinstance(content, bytes) else content.read_bytes()
        (self.base / "input" / name).write_bytes(data)
        return name

    def output_files(self, run: Run) -> list[Path]:
        """Files written by a run's output nodes (Save…, Preview…), in the order of the nodes."""
        entries = [entry for results in run.outputs.values() for result in results.values() for entry in result]
        files = [entry for entry in entries if isinstance(entry, dict) and "filename" in entry]
        return [self.base / file["type"] / file.get("subfolder", "") / file["filename"] for file in files]

    def log(self) -> str:
        """What the server has printed, without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log_file.read_text(encoding="utf-8", errors="replace"))

    def log_tail(self) -> str:
        return f"--- end of {self.log_file}\n" + "\n".join(self.log().splitlines()[-40:])

    def check_alive(self) -> None:
        if self._process is None or self._process.poll() is not None:
            raise ServerFailed(f"The server is not running.\n{self.log_tail()}")

    def _wait_for_start(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        started = False
        while not started:
            time.sleep(0.2)
            self.check_alive()
            with contextlib.suppress(OSError):  # not listening yet
                started = bool(self._request("/system_stats"))
            if "IMPORT FAILED" in self.log():
                raise ServerFailed(f"The server could not import the pack.\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"No answer in {START_TIMEOUT:.0f} s.\n{self.log_tail()}")

    def get(self, path: str) -> Any:
        """The JSON answer at an address of the server."""
        return self._request(path)

    def _request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """GET a path, or POST a JSON body to it; return the JSON answer, None if empty."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.address}{path}", data, {"Content-Type": "application/json"})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
        with direct.open(request, timeout=60) as response:
            answer = response.read()
        return json.loads(answer) if answer else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:  # Windows without the right to make links
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".git", ".venv", "tests", "__pycache__"))
