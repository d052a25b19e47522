"""Which crashed runs go on, and that no order of the reports of a death loses one: with the states of a real server."""

import signal
from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.states import AwaitingRetry, Completed, Crashed, Pending, Running

from flows.lab.flow_processes import FlowProcess
from flows.lab.resume import AUTO_RESUMED, FOR_A_PERSON, MAX_AUTO_RESUMES, auto_resumes
from flows.lab.watch import Lasting, RunWatch
from flows.machine.out_of_memory import OUT_OF_MEMORY

SAMPLE, UNTAGGED = "sample/sample", "nightly-evaluation/nightly-evaluation"
RUNNER = "Process exited with status code: -9. Killed."
WORKER = "Flow run infrastructure exited with non-zero status code -9. Killed."


@pytest.fixture
def client(lab, paused):
    """Of a lab in which no run starts, and `agd up` does not look."""
    lab.process.send_signal(signal.SIGSTOP)
    yield paused
    lab.process.send_signal(signal.SIGCONT)


class Watched:
    """A run of a lab, and somebody whose looks are ten minutes apart."""

    def __init__(self, lab, client, deployment=SAMPLE):
        self.client, self.lines, self.now = client, [], 0.0
        self.id = client.create_flow_run_from_deployment(client.read_deployment_by_name(deployment).id).id
        client.update_flow_run_labels(self.id, {"prefect.worker.name": lab.lab.worker_name})
        self.watch = RunWatch(lab.lab, self.lines.append, lambda: self.now)

    def begin(self):
        """What worker and engine say of a try, up to its first second."""
        self.say(Pending(), State(type=StateType.PENDING, name="Submitting"), Running())

    def say(self, *states):
        """One state after the other, as worker, runner and engine propose them: the server may refuse."""
        for state in states:
            self.client.set_flow_run_state(self.id, state)

    def look(self):
        """Two looks; the state that the run has then."""
        for _ in range(2):
            self.watch.look(self.client)
            self.now += 600
        return self.client.read_flow_run(self.id).state

    def resumes(self):
        return auto_resumes(self.client.read_flow_run_states(self.id))


@pytest.fixture
def run(lab, client):
    watched = Watched(lab, client)
    yield watched
    client.delete_flow_run(watched.id)


def test_both_reports_before_the_look(run):
    run.begin()
    run.say(Crashed(message=RUNNER), Crashed(message=WORKER))
    assert (run.look().name, run.resumes()) == ("AwaitingRetry", 1)


def test_the_second_report_after_the_run_was_queued_again(run):
    run.begin()
    run.say(Crashed(message=RUNNER))
    assert run.look().message == AUTO_RESUMED
    run.say(Crashed(message=WORKER))
    assert (run.look().name, run.resumes()) == ("AwaitingRetry", 1), "one death, one resume"


def test_the_second_report_after_a_worker_took_the_run_again(run):
    run.begin()
    run.say(Crashed(message=RUNNER))
    run.look()
    run.say(Pending(), Crashed(message=WORKER))
    assert run.look().name == "AwaitingRetry"


def test_the_second_report_while_the_next_try_runs_does_not_disturb_it(run, monkeypatch):
    run.begin()
    run.say(Crashed(message=RUNNER))
    run.look()
    run.begin()
    monkeypatch.setattr("flows.lab.watch.flow_processes", lambda lab: [FlowProcess(1, run.id)])
    run.say(Crashed(message=WORKER))
    assert run.look().name == "Crashed", "its process lives, so it is not started a second time"
    run.say(Completed())
    assert run.look().name == "Completed"


def test_only_the_workers_report_or_only_the_engines_own(run):
    run.begin()
    run.say(Crashed(message=WORKER))
    assert run.look().name == "AwaitingRetry"


def test_a_run_that_dies_at_once_every_time_stops(run):
    for _ in range(MAX_AUTO_RESUMES):
        run.begin()
        run.say(Crashed(message=RUNNER))
        assert run.look().name == "AwaitingRetry"
    run.say(Pending(), Crashed(message=RUNNER))
    stopped = run.look()
    assert stopped.name == "Failed"
    assert RUNNER in stopped.message
    assert stopped.message.endswith(FOR_A_PERSON)
    run.say(Crashed(message=WORKER))
    assert run.look().name == "Failed"
    run.say(AwaitingRetry(message="Retry from the UI"))
    run.begin()
    run.say(Crashed(message=RUNNER))
    assert run.look().name == "AwaitingRetry", "after a person's Retry the count begins anew"


def test_memory_that_ran_out_is_said_and_stops_too(run):
    line = f"{OUT_OF_MEMORY} (CUDA out of memory): try this"
    for _ in range(MAX_AUTO_RESUMES):
        run.begin()
        run.say(Crashed(message=line))
        assert run.look().message == f"{AUTO_RESUMED}: {line}"
    run.begin()
    run.say(Crashed(message=line))
    assert line in run.look().message
    assert run.look().name == "Failed"


def test_a_process_that_the_kernel_killed_for_memory_is_told_from_others(run, monkeypatch):
    monkeypatch.setattr("flows.machine.out_of_memory.KernelKills.lately", lambda self, seconds: True)
    run.begin()
    run.say(Crashed(message=RUNNER))
    assert f"{AUTO_RESUMED}: {OUT_OF_MEMORY}, the kernel killed it" in run.look().message


def test_a_run_that_nobody_tagged_stays_crashed(lab, client):
    run = Watched(lab, client, UNTAGGED)
    run.begin()
    run.say(Crashed(message=RUNNER))
    assert run.look().name == "Crashed"
    client.delete_flow_run(run.id)


def test_an_old_crash_is_history(run, monkeypatch):
    run.begin()
    run.say(Crashed(message=RUNNER))
    monkeypatch.setattr("flows.lab.resume._REMEMBERED", timedelta(hours=-1))  # the server dates the crash itself
    assert run.look().name == "Crashed"
    monkeypatch.undo()
    assert run.look().name == "AwaitingRetry"


@pytest.mark.parametrize("has_a_process", [True, False])
def test_a_run_whose_command_never_begins_it_ends_and_waits_for_a_person(run, monkeypatch, has_a_process):
    killed = []
    monkeypatch.setattr("flows.lab.watch.runs_with_a_process", lambda lab: {run.id} if has_a_process else set())
    monkeypatch.setattr("flows.lab.watch.kill_processes_of", lambda lab, ended: killed.append(ended))
    run.say(Pending(), State(type=StateType.PENDING, name="Submitting"))
    ended = run.look()
    run.say(Crashed(message=WORKER))
    assert run.look() == ended
    assert (ended.name, killed) == ("Crashed", [run.id])
    assert ("no process came" in ended.message) != has_a_process
    assert ended.message.endswith(FOR_A_PERSON)
    assert "\n" not in ended.message


def test_a_run_that_has_lost_its_process_without_a_report_goes_on(run):
    run.begin()
    assert run.look().message == "agd up: its process is gone"
    assert run.look().name == "AwaitingRetry"


def test_a_thing_lasts_only_as_long_as_every_look_finds_it():
    now = 0.0
    lasting = Lasting(lambda: now)
    assert lasting.seconds(["a"]) == {"a": 0}
    now = 2.0
    assert lasting.seconds(["a", "b"]) == {"a": 2, "b": 0}
    now = 3.0
    assert lasting.seconds(["b"]) == {"b": 1}
    assert lasting.seconds(["a"]) == {"a": 0}


def resumed_at(*minutes_and_messages):
    """States of a run, queued again at these minutes, each time after it had begun."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for minute, message in minutes_and_messages:
        time = start + timedelta(minutes=minute)
        yield State(type=StateType.SCHEDULED, name="AwaitingRetry", message=message, timestamp=time)
        yield State(type=StateType.PENDING, timestamp=time + timedelta(seconds=1))


@pytest.mark.parametrize(
    ("messages", "since", "count"),
    [
        ([], None, 0),
        ([AUTO_RESUMED], None, 1),
        ([AUTO_RESUMED, f"{AUTO_RESUMED}: out of memory"] * 2, None, 4),
        ([AUTO_RESUMED] * 4 + ["Retry from the UI"], None, 0),
        ([AUTO_RESUMED, None, AUTO_RESUMED, AUTO_RESUMED], None, 2),
        ([AUTO_RESUMED] * 4, 1.5, 2),
    ],
)
def test_resumes_are_counted_since_a_person_or_a_finished_task(messages, since, count):
    finished = None if since is None else datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=since)
    assert auto_resumes(list(resumed_at(*enumerate(messages)))[::-1], finished) == count
