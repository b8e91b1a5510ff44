"""Rounds under load with real processes: kill one, start again what must be, read everything back.

One data directory lives through all rounds. `paychan serve` runs on Ray as an operator runs it,
payers push claims over the socket without a pause, and an oracle in a process of its own keeps
every acknowledgement on disk and judges by them. Whom a round kills, and when, follows from the
number of the campaign. Alone: `python -m tests.faults.rounds --rounds 10`.
"""

import argparse
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from bench.harness import resident_mb
from bench.signing import opening
from engine.channels.journal import verify_directory
from tests.faults.oracle import Question, Verdict
from tests.faults.payers import is_by_amount, payer
from tests.faults.scorecard import Budget, Progress, Row

MARK: Final = "ROUNDS_MARK"
"""An environment variable that all processes of a campaign inherit, so that none is missed."""

CHANNELS: Final = 128
SHARDS: Final = 2
READY_MAX_S: Final = 90.0
GONE_MAX_S: Final = 30.0
START_PAUSE_S: Final = 0.5
STARTS_MAX: Final = 20
VERDICT_MAX_S: Final = 180.0
QUICK_ROUNDS: Final = 3
FULL_ROUNDS: Final = 200
COMMAND: Final = "python -m tests.faults rounds --full"

VICTIMS: Final = {"shard": 40, "verifier": 22, "gateway": 16, "raylet": 10, "all of it": 12}
"""What is killed, and how often of a hundred."""

TAKES_THE_GATEWAY: Final = frozenset({"gateway", "raylet", "all of it"})

SETTINGS: Final = {
    "PAYCHAN_PLACEMENT__SHARDS": str(SHARDS),
    "PAYCHAN_VERIFY__VERIFIERS": "2",
    "PAYCHAN_VERIFY__VERIFY_TIMEOUT_S": "2",
    "PAYCHAN_SHARD__SEGMENT_BYTES": str(1 << 20),
    "PAYCHAN_SHARD__CHECKPOINT_EVENTS": "2000",
    "PAYCHAN_SHARD__INCREMENTS_MAX": "3",
    "PAYCHAN_SHARD__PACK_AFTER_S": "2",
}
"""Small segments, frequent checkpoints, merges and packing: so that kills meet them too."""


class Round(msgspec.Struct, frozen=True):
    """What one round did: whom it killed, and how long until every shard accepted a later claim."""

    victim: str
    seconds: float
    first_s: float
    gateway_mb: float
    shards_mb: float


class Engine:
    """`paychan serve` with all its processes, found by a mark in their environment."""

    def __init__(self, folder: Path, mark: str, settings: Mapping[str, str]) -> None:
        self.datadir = folder / "data"
        self._settings = settings
        self.log = folder / "serve.log"
        self.url = ""
        self.starts = 0
        self._mark = mark
        self._ray_folder = tempfile.mkdtemp(prefix="pc", dir="/tmp")  # sockets want a short path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Serve, again and again where the last one's processes still hold what is needed."""
        for _ in range(STARTS_MAX):
            if self._try_to_start():
                return
            time.sleep(START_PAUSE_S)
        raise RuntimeError(f"it did not start {STARTS_MAX} times: {self.log.read_text()[-2_000:]}")

    def _try_to_start(self) -> bool:
        self.starts += 1
        command = [sys.executable, "-m", "engine.cli.main", "serve", "--datadir", str(self.datadir)]
        environment = os.environ | self._settings
        environment |= {MARK: self._mark, "RAY_TMPDIR": self._ray_folder}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--listen", "127.0.0.1:0"],
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        said, give_up_at = b"", time.monotonic() + READY_MAX_S
        assert self._process.stdout is not None
        while b"ready on " not in said or not said.endswith(b"\n"):
            left_s = max(0.0, give_up_at - time.monotonic())
            readable, _, _ = select.select([self._process.stdout], [], [], left_s)
            piece = os.read(self._process.stdout.fileno(), 65_536) if readable else b""
            if not piece:
                self.reap()
                return False
            said += piece
        self.url = said.split(b"ready on ")[1].split()[0].decode()
        return True

    @property
    def gateway(self) -> int:
        """The process that serves."""
        assert self._process is not None
        return self._process.pid

    def shards(self) -> list[dict[str, Any]]:
        """Return what the server says of its shards."""
        with urllib.request.urlopen(f"{self.url}/v1/server", timeout=30) as answer:
            shards: list[dict[str, Any]] = json.load(answer)["shards"]
        return shards

    def pids(self, victim: str, chance: random.Random) -> list[int]:
        """Return the processes a round kills."""
        match victim:
            case "shard":
                return [chance.choice(self.shards())["pid"]]
            case "verifier":
                return [chance.choice(self._named("VerifierHost"))]
            case "gateway":
                return [self.gateway]
            case "raylet":
                return self._named("/raylet/raylet")[:1]
            case _:
                return list(marked(self._mark))

    def reap(self) -> None:
        """Return once the server's process is gone.

        Raises:
            subprocess.TimeoutExpired: it should be, and is not.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait(GONE_MAX_S)

    def stop(self) -> int:
        """Stop it as an operator would; return its exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(READY_MAX_S)
        self.reap()
        return code

    def end(self) -> None:
        """Leave nothing behind."""
        if self._process is not None:
            self._process.kill()
            self.reap()
        end_all(self._mark)
        shutil.rmtree(self._ray_folder, ignore_errors=True)

    def _named(self, word: str) -> list[int]:
        """Return processes by name; one that an earlier round killed may be on its way back."""
        give_up_at = time.monotonic() + GONE_MAX_S
        while time.monotonic() < give_up_at:
            found = sorted(pid for pid, command in marked(self._mark).items() if word in command)
            if found:
                return found
            time.sleep(0.05)
        raise LookupError(f"no process of {word}")


class Watch:
    """The payers and the oracle, which outlive every engine."""

    def __init__(self, folder: Path, mark: str, series: str) -> None:
        ear, mouth = os.pipe()
        environment = os.environ | {MARK: mark}
        pipe = subprocess.PIPE
        names = [series, str(CHANNELS)]
        log = (folder / "watch.log").open("ab")
        self._payers = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.payers", *names, str(mouth)],
            stdin=pipe, stderr=log, env=environment, pass_fds=(mouth,),
        )  # fmt: skip
        paths = [str(folder / "acknowledged"), str(folder / "data")]
        self._oracle = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.oracle", *names, str(ear), *paths],
            stdin=pipe, stdout=pipe, stderr=log, env=environment, pass_fds=(ear,),
        )  # fmt: skip
        log.close()
        os.close(ear)
        os.close(mouth)

    def pay(self, url: str) -> None:
        """Let the payers send to this address from now on."""
        assert self._payers.stdin is not None
        self._payers.stdin.write(f"{url}\n".encode())
        self._payers.stdin.flush()

    def stop_paying(self) -> None:
        """Return once the payers have ended."""
        assert self._payers.stdin is not None
        self._payers.stdin.close()
        self._payers.wait(READY_MAX_S)

    def ask(self, question: Question) -> Verdict:
        """Return the oracle's answer."""
        assert self._oracle.stdin is not None
        assert self._oracle.stdout is not None
        self._oracle.stdin.write(msgspec.json.encode(question) + b"\n")
        self._oracle.stdin.flush()
        readable, _, _ = select.select([self._oracle.stdout], [], [], VERDICT_MAX_S)
        line = self._oracle.stdout.readline() if readable else b""
        if not line:
            raise RuntimeError("the oracle does not answer")
        return msgspec.json.decode(line, type=Verdict)

    def end(self) -> None:
        """Leave nothing behind."""
        for process in (self._payers, self._oracle):
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


class Rounds:
    """A campaign; use it with `with`, and nothing of it stays."""

    def __init__(self, number: int, settings: Mapping[str, str] = SETTINGS) -> None:
        """`number` decides whom the rounds kill; `settings` are the engine's, as environment."""
        self._number = number
        self._mark = f"rounds-{os.getpid()}-{number}"
        self._folder = Path(tempfile.mkdtemp(prefix="paychan-rounds-"))
        self.engine = Engine(self._folder, f"{self._mark}-engine", settings)
        self._watch = Watch(self._folder, f"{self._mark}-watch", self._mark)
        self.rounds: list[Round] = []
        self.verdict = Verdict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watch.end()
        self.engine.end()
        end_all(f"{self._mark}-watch")
        if kind is None and self.is_good:
            shutil.rmtree(self._folder)
        else:
            sys.stderr.write(f"everything is kept in {self._folder}\n")

    @property
    def is_good(self) -> bool:
        """Whether all that was read back so far is as it should be."""
        seen = self.verdict
        return not (seen.lost or seen.invented or seen.duplicates or seen.refused)

    def begin(self) -> None:
        """Serve, open the channels, and let the payers pay."""
        self.engine.start()
        for number in range(CHANNELS):
            body = opening(payer(number, self._mark))
            body |= {"sequencing": "amount"} if is_by_amount(number) else {}
            post(f"{self.engine.url}/v1/channels", body)
        since = time.monotonic()
        self._watch.pay(self.engine.url)
        self.judge(since)

    def play(self, index: int) -> Round:
        """Play round `index`: kill, start again, read back."""
        began = time.monotonic()
        pause_s, victim, chance = plan(self._number, index)
        time.sleep(pause_s)
        pids = self.engine.pids(victim, chance)
        since = time.monotonic()
        kill(pids)
        if victim in TAKES_THE_GATEWAY:
            self.engine.reap()
            self.engine.start()
            self._watch.pay(self.engine.url)
        first_s = self.judge(since)
        shards_mb = sum(resident_mb(shard["pid"]) for shard in self.engine.shards())
        gateway_mb = resident_mb(self.engine.gateway)
        played = Round(victim, time.monotonic() - began, first_s, gateway_mb, shards_mb)
        self.rounds.append(played)
        return played

    def finish(self) -> int:
        """Stop everything, and judge the whole log once more; return the damages found in it."""
        self._watch.stop_paying()
        code = self.engine.stop()
        self.verdict = self._watch.ask(Question("", 0.0, list(range(SHARDS))))
        if code:
            self.verdict.note(f"the last engine ended with {code}")
        damages = 0
        for directory in sorted(self.engine.datadir.glob("shard-*")):
            damages += len(verify_directory(directory).damages)
        return damages

    def judge(self, since: float) -> float:
        """Read everything back once each shard has accepted a claim sent after `since`.

        Returns:
            Seconds from `since` until they had.
        """
        question = Question(self.engine.url, since, list(range(SHARDS)))
        self.verdict = self._watch.ask(question)
        return self.verdict.first_s


def plan(number: int, index: int) -> tuple[float, str, random.Random]:
    """Return how long round `index` waits, what it kills, and the chance that says which of it."""
    chance = random.Random(f"{number} round {index}")
    pause_s = 0.3 + chance.random()
    (victim,) = chance.choices(list(VICTIMS), list(VICTIMS.values()))
    return pause_s, victim, chance


def marked(mark: str) -> dict[int, str]:
    """Return pid and command line of every process with a mark in its environment."""
    wanted = f"{MARK}={mark}".encode()
    found: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(folder.name)] = command.decode(errors="replace")
            except OSError:  # it has ended meanwhile
                continue
    return found


def kill(pids: Sequence[int]) -> None:
    """End processes with no chance to do anything; one that is gone already is no matter."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def end_all(mark: str) -> None:
    """Return once no process with a mark is left."""
    give_up_at = time.monotonic() + GONE_MAX_S
    while (left := marked(mark)) and time.monotonic() < give_up_at:
        kill(list(left))
        time.sleep(0.02)


def post(url: str, body: dict[str, Any]) -> None:
    """Post JSON.

    Raises:
        urllib.error.HTTPError: it was refused.
    """
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of them lie; 0 for none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def play_rounds(
    count: int, number: int, progress: Progress, told: Callable[[Rounds], None] = lambda _: None
) -> tuple[Rounds, int]:
    """Play until something is wrong; return the campaign with the damages in its log at the end.

    `told` gets the campaign after each round.
    """
    with Rounds(number) as rounds:
        rounds.begin()
        while rounds.is_good and len(rounds.rounds) < count:
            progress(len(rounds.rounds), count, f"{rounds.verdict.checked} claims read back")
            rounds.play(len(rounds.rounds))
            told(rounds)
        damages = rounds.finish()
    return rounds, damages


def row_of(rounds: Rounds, damages: int, seconds: float) -> Row:
    """Return the row of a campaign."""
    verdict, played = rounds.verdict, rounds.rounds
    firsts = [one.first_s for one in played]
    kinds = Counter(one.victim for one in played)
    notes = [
        "killed: " + ", ".join(f"{victim} {count}" for victim, count in kinds.most_common()),
        "recovery is from the kill to the first claim accepted on every shard that was sent later",
    ]
    for victim in kinds:
        own = [one.first_s for one in played if one.victim == victim]
        notes.append(
            f"{victim}: p50 {percentile(own, 0.5):.2f} s, p99 {percentile(own, 0.99):.2f} s"
        )
    notes.append(memory_note(played))
    notes += [f"{verdict.invented} invented, {verdict.refused} wrongly refused", *verdict.notes]
    return Row(
        name="SIGKILL under load",
        tried=len(played),
        acknowledged_checked=verdict.checked,
        lost=verdict.lost + max(0, verdict.acknowledged - verdict.checked),
        undetected=damages,
        false_alarms=verdict.refused + verdict.invented,
        duplicates=verdict.duplicates,
        seconds=round(seconds, 1),
        command=COMMAND,
        recovery_ms=(percentile(firsts, 0.5) * 1_000, percentile(firsts, 0.99) * 1_000),
        notes=tuple(notes),
    )


def memory_note(played: Sequence[Round]) -> str:
    """Say how memory went over the rounds."""
    gateways, shards = [one.gateway_mb for one in played], [one.shards_mb for one in played]
    return (
        f"memory: gateway {gateways[0]:.0f} MB in the first round, {gateways[-1]:.0f} in the last, "
        f"{max(gateways):.0f} at most; shards {shards[0]:.0f}, {shards[-1]:.0f}, {max(shards):.0f}"
    )


def run(budget: Budget, progress: Progress) -> list[Row]:
    """Run the campaign: see `scorecard`."""
    started = time.perf_counter()
    count = budget.amount(QUICK_ROUNDS, FULL_ROUNDS)
    rounds, damages = play_rounds(count, budget.number, progress)
    return [row_of(rounds, damages, time.perf_counter() - started)]


def say(rounds: Rounds) -> None:
    """Print what the newest round did."""
    played = rounds.rounds[-1]
    sys.stdout.write(
        f"{len(rounds.rounds):3} {played.victim:9} {played.seconds:5.2f} s, first after "
        f"{played.first_s:5.2f} s; {rounds.verdict.checked} read back; "
        f"gateway {played.gateway_mb:.0f} MB, shards {played.shards_mb:.0f} MB\n"
    )
    sys.stdout.flush()


def main() -> int:
    """Play as many rounds as asked and print each."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.rounds", description=__doc__)
    parser.add_argument("--rounds", type=int, default=QUICK_ROUNDS)
    parser.add_argument("--number", type=int, default=1, help="decides whom each round kills")
    chosen = parser.parse_args()
    started = time.perf_counter()
    rounds, damages = play_rounds(chosen.rounds, chosen.number, lambda *_: None, say)
    row = row_of(rounds, damages, time.perf_counter() - started)
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(row)).decode() + "\n")
    return 0 if row.good else 1


if __name__ == "__main__":
    sys.exit(main())
