"""Log lines: their shape, what may be in them, and that nothing they do harms a request."""

import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import httpx
import pytest
from functions_framework.execution_id import ExecutionContext, LoggingHandlerAddExecutionId, execution_context_var

from common.clock import ManualClock, SystemClock
from common.errors import UpstreamError
from common.logs import FIELDS, EventLog, HttpRequest, LogOutput, configure, describe_exception
from common.redact import fingerprint, redact
from common.trace import TraceContext

VIN = "WBA00000000DEMO01"
ADDRESS = "owner@example.com"
TRACE = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=True)
LABELS = {"environment": "staging", "service": "bmw-api", "version": "1.2.3", "revision": "bmw-api-00042-x7k"}
TOUCHED = ("httpx", "httpcore", "google", "urllib3", "asyncio", "werkzeug", "gunicorn.access", "uvicorn.access",
           "bimmer_connected", "gunicorn.error", "uvicorn", "uvicorn.error")  # fmt: skip


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """``configure`` changes the process; give it back."""
    loggers = [logging.getLogger(), *map(logging.getLogger, TOUCHED)]
    before = [(one, list(one.handlers), one.level, one.propagate) for one in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


class Recorder(io.StringIO):
    """A stream that remembers each call of write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(one) for one in self.writes]


class Broken(io.StringIO):
    """A stream that fails."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(text)


def set_up(
    stream: TextIO | None = None,
    level: str = "INFO",
    project_id: str | None = "draiv-test",
    on_drop: Callable[[], None] | None = None,
) -> LogOutput:
    return configure(stream, level=level, project_id=project_id, on_drop=on_drop, **LABELS)


@pytest.fixture
def out() -> Recorder:
    return Recorder()


@pytest.fixture
def log(out: Recorder) -> EventLog:
    return EventLog(set_up(out), ManualClock(), strict=True)


# --- events ---------------------------------------------------------------------------------------------------------
def test_an_event_is_one_line_of_json_as_cloud_logging_reads_it(log: EventLog, out: Recorder) -> None:
    http = HttpRequest("POST", "/path?password=x", 200, 0.0031, 812)
    log.emit("request_completed", trace=TRACE, http=http, action="status", cached=True, age_s=None, duration_ms=3.1)
    assert out.writes[0].endswith("}\n")
    assert out.lines == [
        {
            "severity": "INFO",
            "message": "request_completed",
            "time": "2026-01-01T12:00:00Z",
            "action": "status",
            "cached": True,
            "age_s": None,
            "duration_ms": 3.1,
            "httpRequest": {
                "requestMethod": "POST",
                "requestUrl": "/path",
                "status": 200,
                "latency": "0.003100s",
                "responseSize": "812",
            },
            "logging.googleapis.com/trace": f"projects/draiv-test/traces/{TRACE.trace_id}",
            "logging.googleapis.com/spanId": TRACE.span_id,
            "logging.googleapis.com/trace_sampled": True,
            "logging.googleapis.com/labels": LABELS,
        }
    ]


def test_without_a_project_the_trace_is_its_bare_id(out: Recorder) -> None:
    EventLog(set_up(out, project_id=None), SystemClock()).emit("request_completed", trace=TRACE)
    assert out.lines[0]["logging.googleapis.com/trace"] == TRACE.trace_id


def test_each_event_is_one_write_so_that_lines_are_never_joined_or_torn(log: EventLog, out: Recorder) -> None:
    log.emit("one")
    log.emit("two")
    assert [one.count("\n") for one in out.writes] == [1, 1]


def test_events_below_the_level_are_not_written(out: Recorder) -> None:
    log = EventLog(set_up(out, level="WARNING"), SystemClock())
    log.emit("quiet", "INFO")
    log.emit("loud", "WARNING")
    assert [one["message"] for one in out.lines] == ["loud"]


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("not a name", {}),
        ("Request", {}),
        ("fine", {"password": "x"}),
        ("fine", {"vin": VIN}),
        ("fine", {"reason": ["a", "list"]}),
        ("fine", {"vehicle": VIN}),
        ("fine", {"caller": "https://issuer|subject"}),
    ],
)
def test_in_tests_an_event_that_breaks_the_rules_is_refused(
    log: EventLog, out: Recorder, event: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="not a"):
        log.emit(event, **fields)
    assert out.writes == []


def test_in_production_an_unknown_field_is_left_out_and_counted(out: Recorder) -> None:
    dropped: list[None] = []
    log = EventLog(set_up(out, on_drop=lambda: dropped.append(None)), SystemClock())
    log.emit("odd", password="hunter2", user="x", status=200)
    assert len(dropped) == 2
    assert {"password", "user"}.isdisjoint(out.lines[0])
    assert out.lines[0]["status"] == 200


def test_fingerprints_and_none_are_accepted_for_people_and_cars(log: EventLog, out: Recorder) -> None:
    log.emit("fine", vehicle=fingerprint(VIN), caller=None)
    assert out.lines[0]["vehicle"] == fingerprint(VIN)


def test_no_field_has_a_name_whose_value_redaction_would_mask() -> None:
    lines = [json.dumps({"message": "x y", name: "CIRCUIT_OPEN"}) for name in FIELDS]
    assert [line for line in lines if redact(line) != line] == []


def test_what_slipped_into_an_event_is_redacted_in_the_finished_line(log: EventLog, out: Recorder) -> None:
    log.emit("slipped", reason=f"{ADDRESS} and {VIN.lower()}", endpoint=f"/vehicles/{VIN}")
    assert out.lines[0]["reason"] == "<address> and <vin>"
    assert out.lines[0]["endpoint"] == "/vehicles/<vin>"


class Unprintable:
    """An object that should not have come here."""

    def __str__(self) -> str:
        raise RuntimeError(VIN)


@pytest.mark.parametrize("value", ["half a pair: \ud800", 2**70, Unprintable(), {"a": {1, 2}}, b"bytes", float("nan")])
def test_a_value_that_json_cannot_hold_does_not_lose_the_line(out: Recorder, value: Any) -> None:
    EventLog(set_up(out), ManualClock()).emit("strange", reason=value, status=200)
    assert out.lines[0]["status"] == 200
    assert out.lines[0]["time"].startswith("2026-01-01T12:00:00")


def test_a_stream_that_fails_costs_the_line_and_nothing_else() -> None:
    dropped: list[None] = []
    output = set_up(Broken(), on_drop=lambda: dropped.append(None))
    log = EventLog(output, SystemClock())
    log.emit("lost")
    logging.getLogger("some.library").warning("lost too")
    log.emit("lost", "NONSENSE")  # type: ignore[arg-type]  # what a caller without a type checker may do
    assert len(dropped) == 3
    EventLog(set_up(Broken()), SystemClock()).emit("nobody_counts")


def test_a_closed_stdout_costs_the_line_and_nothing_else() -> None:
    closed = io.StringIO()
    closed.close()
    dropped: list[None] = []
    EventLog(set_up(closed, on_drop=lambda: dropped.append(None)), SystemClock()).emit("lost")
    assert len(dropped) == 1


def test_a_stdout_that_is_not_utf_8_gets_the_same_line_in_ascii() -> None:
    raw = io.BytesIO()
    EventLog(set_up(io.TextIOWrapper(raw, encoding="ascii")), SystemClock()).emit("greeting", reason="Grüß Gott")
    assert json.loads(raw.getvalue().decode("ascii"))["reason"] == "Grüß Gott"


def test_lines_of_many_threads_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w", encoding="utf-8") as stream:
        log = EventLog(set_up(stream), SystemClock())
        together = threading.Barrier(8)

        def work(thread: int) -> None:
            together.wait()
            for number in range(250):
                log.emit("counted", count=thread * 1_000 + number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    counts = [json.loads(line)["count"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert sorted(counts) == sorted(thread * 1_000 + number for thread in range(8) for number in range(250))


class Meeting(Recorder):
    """A stream that notices two threads in it at a time; the platform's, with two writes a line, would mix them."""

    def __init__(self) -> None:
        super().__init__()
        self.met = False
        self._two = threading.Barrier(2)

    def write(self, text: str) -> int:
        try:
            self._two.wait(timeout=0.1)
            self.met = True
        except threading.BrokenBarrierError:
            self._two.reset()
        return super().write(text)


def test_only_one_thread_writes_at_a_time() -> None:
    stream = Meeting()
    log = EventLog(set_up(stream), SystemClock())
    threads = [threading.Thread(target=log.emit, args=("counted",)) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(stream.lines) == 2
    assert not stream.met


# --- stdout, as the platform wraps it -------------------------------------------------------------------------------
def test_stdout_is_looked_up_when_a_line_is_written() -> None:
    log = EventLog(set_up(), SystemClock())
    first, second = io.StringIO(), io.StringIO()
    with redirect_stdout(first):
        log.emit("one")
    with redirect_stdout(second):
        log.emit("two")
    assert json.loads(first.getvalue())["message"] == "one"
    assert json.loads(second.getvalue())["message"] == "two"


def test_the_platforms_execution_id_is_added_to_our_labels_and_nothing_is_lost() -> None:
    log = EventLog(set_up(), SystemClock())
    stdout = io.StringIO()
    context: Any = ExecutionContext(execution_id="exec12345678")  # type: ignore[no-untyped-call]  # ships no types
    token = execution_context_var.set(context)
    try:
        with redirect_stdout(LoggingHandlerAddExecutionId(stdout)):  # type: ignore[no-untyped-call]  # ships no types
            log.emit("one", trace=TRACE, reason=ADDRESS)
            log.emit("two", trace=TRACE)
    finally:
        execution_context_var.reset(token)
    one, two = (json.loads(line) for line in stdout.getvalue().splitlines())
    assert one["logging.googleapis.com/labels"] == {**LABELS, "execution_id": "exec12345678"}
    assert one["reason"] == "<address>"
    assert two["message"] == "two"
    assert two["logging.googleapis.com/trace"].endswith(TRACE.trace_id)


# --- what libraries log ---------------------------------------------------------------------------------------------
def test_a_librarys_record_comes_out_as_a_redacted_line(out: Recorder) -> None:
    set_up(out)
    logging.getLogger("some.library").warning("no answer for %s of %s", VIN, {"password": "hunter2", "email": ADDRESS})
    (line,) = out.lines
    assert line["severity"] == "WARNING"
    assert line["logger"] == "some.library"
    assert line["message"] == "no answer for <vin> of {'password': '<masked>', 'email': '<masked>'}"
    assert line["logging.googleapis.com/labels"] == LABELS
    assert line["time"].endswith("Z")


@pytest.mark.parametrize(
    ("level", "severity"), [(1, "DEBUG"), (10, "DEBUG"), (25, "INFO"), (35, "WARNING"), (40, "ERROR"), (60, "CRITICAL")]
)
def test_a_level_between_the_known_ones_takes_the_name_below(out: Recorder, level: int, severity: str) -> None:
    set_up(out, level="DEBUG")
    logger = logging.getLogger("odd.levels")
    logger.setLevel(1)
    for handler in logging.getLogger().handlers:
        handler.setLevel(1)
    logger.log(level, "x")
    assert out.lines[0]["severity"] == severity


def test_only_the_first_line_of_a_librarys_message_is_kept_and_not_without_end(out: Recorder) -> None:
    set_up(out)
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: <Task exception=E('the text')>")
    logging.getLogger("some.library").error("long " * 1_000)
    assert out.lines[0]["message"] == "Task exception was never retrieved"
    assert len(out.lines[1]["message"]) == 500


def test_a_record_that_cannot_be_formatted_is_still_a_line_and_shows_no_argument(
    out: Recorder, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up(out)
    logging.getLogger("some.library").warning("%d cars", "hunter2")
    logging.getLogger("some.library").warning("%s", Unprintable())
    assert [one["message"] for one in out.lines] == ["unformattable_log_record"] * 2
    assert capfd.readouterr() == ("", "")


def test_a_record_that_makes_no_line_is_counted_and_nothing_of_it_is_shown(
    out: Recorder, capfd: pytest.CaptureFixture[str]
) -> None:
    dropped: list[None] = []
    set_up(out, on_drop=lambda: dropped.append(None))
    logging.getLogger("some.library").handle(logging.makeLogRecord({"msg": "hunter2", "levelno": 40, "created": 1e300}))
    assert len(dropped) == 1
    assert out.writes == []
    assert capfd.readouterr() == ("", "")


def test_httpx_does_not_log_urls_with_vins_in_them(out: Recorder) -> None:
    set_up(out, level="DEBUG")
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    httpx.Client(transport=transport).get(f"https://maker.example/vehicles/{VIN}/state")
    assert [one for one in out.lines if "maker.example" in one["message"]] == []


def test_at_level_error_no_warning_of_a_quieted_library_comes_through(out: Recorder) -> None:
    set_up(out, level="ERROR")
    logging.getLogger("httpx").warning("a warning")
    assert out.writes == []


def test_a_server_that_logs_past_the_root_logger_is_brought_back(out: Recorder) -> None:
    past = io.StringIO()
    logger = logging.getLogger("gunicorn.error")
    logger.addHandler(logging.StreamHandler(past))
    logger.propagate = False
    set_up(out)
    logger.error("Error handling request /?password=hunter2&x=1")
    assert past.getvalue() == ""
    assert out.lines[0]["message"] == "Error handling request /?password=<masked>&x=1"


def test_configuring_again_replaces_the_handler(out: Recorder) -> None:
    old = Recorder()
    logging.getLogger().addHandler(logging.StreamHandler(old))
    set_up(old)
    set_up(out)
    logging.getLogger("some.library").error("once")
    assert len(out.lines) == 1
    assert old.writes == []


# A process of its own, because what a library logs at import it logs once.
IMPORT_BIMMER_CONNECTED = """
import logging
{configure}
import bimmer_connected.account
logging.getLogger("bimmer_connected.vehicle.vehicle").error("the maker's own words")
logging.getLogger("bimmer_connected").critical("the end")
"""
CONFIGURE = """
from common.logs import configure
configure(level="DEBUG", project_id=None, environment="test", service="s", version="1", revision="r")
"""


@pytest.mark.parametrize("configured", [False, True])
def test_bimmer_connected_is_silent_about_itself_and_the_makers_words(configured: bool) -> None:
    script = IMPORT_BIMMER_CONNECTED.format(configure=CONFIGURE if configured else "")
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    said = done.stdout + done.stderr
    assert ("non-functional" in said) is not configured
    assert ("the maker's own words" in said) is not configured
    assert "the end" in said


# --- exceptions -----------------------------------------------------------------------------------------------------
def fail_upstream(secret: str) -> None:
    try:
        json.loads(secret)
    except ValueError as error:
        raise UpstreamError(secret, details={"password": secret}) from error


def caught(call: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as info:  # noqa: PT011 - whatever it is
        call()
    return info.value


def test_an_exception_is_told_by_its_types_and_our_lines_and_never_by_its_text(log: EventLog, out: Recorder) -> None:
    error = caught(lambda: fail_upstream("hunter2"))
    log.emit("request_failed", "ERROR", error=error)
    told = out.lines[0]["exception"]
    assert [one["type"] for one in told] == ["common.errors.UpstreamError", "json.decoder.JSONDecodeError"]
    assert told[0]["frames"][-1].startswith("tests/common/test_logs.py:")
    assert told[0]["frames"][-1].endswith(" fail_upstream")
    assert all("json/decoder" not in frame for one in told for frame in one["frames"])
    assert "hunter2" not in out.writes[0]


def test_an_exception_that_a_library_logs_is_told_the_same_way(out: Recorder) -> None:
    set_up(out)
    try:
        fail_upstream("hunter2")
    except UpstreamError:
        logging.getLogger("some.library").exception("it failed")
    logging.getLogger("some.library").error("no exception here", exc_info=(None, None, None))
    assert out.lines[0]["message"] == "it failed"
    assert out.lines[0]["exception"][0]["type"] == "common.errors.UpstreamError"
    assert "exception" not in out.lines[1]
    assert "hunter2" not in "".join(out.writes)


def test_the_frames_of_installed_packages_are_left_out_even_where_they_lie_within_the_project() -> None:
    (told, *_) = describe_exception(caught(lambda: httpx.Client().get("nonsense://x")))
    assert told["type"] == "httpx.UnsupportedProtocol"
    assert {frame.partition(":")[0] for frame in told["frames"]} == {"tests/common/test_logs.py"}


def raise_during_another() -> None:
    try:
        int("first")
    except ValueError:
        raise KeyError("second")  # noqa: B904 - what is under test


def raise_instead_of_another() -> None:
    try:
        int("first")
    except ValueError:
        raise KeyError("second") from None


def test_what_an_exception_was_raised_during_is_told_unless_it_was_replaced() -> None:
    assert [one["type"] for one in describe_exception(caught(raise_during_another))] == ["KeyError", "ValueError"]
    assert [one["type"] for one in describe_exception(caught(raise_instead_of_another))] == ["KeyError"]


def test_the_parts_of_a_group_are_told() -> None:
    group = ExceptionGroup("g", [ValueError("a"), ExceptionGroup("h", [KeyError("b")])])
    types = [one["type"] for one in describe_exception(group)]
    assert types == ["ExceptionGroup", "ValueError", "ExceptionGroup", "KeyError"]


def test_circles_and_long_chains_of_causes_come_to_an_end() -> None:
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one
    assert len(describe_exception(one)) == 2
    first = last = ValueError()
    for _ in range(5_000):
        last.__cause__ = ValueError()
        last = last.__cause__
    assert len(describe_exception(first)) == 8


def recurse(depth: int) -> None:
    if depth:
        recurse(depth - 1)
    raise ValueError


def test_of_a_deep_stack_the_innermost_frames_are_told() -> None:
    (told,) = describe_exception(caught(lambda: recurse(50)))
    assert len(told["frames"]) == 20
    assert told["frames"][-1].endswith(" recurse")


def test_our_frames_are_told_by_their_path_within_the_project() -> None:
    frames = describe_exception(caught(lambda: set_up(level="NONE")))[0]["frames"]
    assert frames[-1].partition(":")[0] == "common/logs.py"
    assert all(not frame.startswith("/") for frame in frames)


def test_a_line_to_the_real_stdout_is_one_write_and_arrives_whole() -> None:
    code = (
        "import threading\n"
        "from common.logs import Sink\n"
        "sink = Sink()\n"
        "work = lambda: [sink.write('{\"message\": \"' + 'x' * 900 + '\"}') for _ in range(200)]\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    lines = done.stdout.splitlines()
    assert len(lines) == 1600
    assert len({len(line) for line in lines}) == 1
