"""What goes wrong in a history, and when: processes, calls, the disk, the clock, the verifiers.

A fault is asked for at a moment of virtual time; where it strikes the disk, it waits for the n-th
call from there on. `calm` ends all of it, so that every history also shows the way back.
"""

import asyncio
from typing import Final

from tests.simulation.disk import CALLS, Inode, Trouble
from tests.simulation.processes import SimRuntime, SimShard, SimVerifier
from tests.simulation.world import Broken, World
from wal.manifest import decode_manifest

CHANGING: Final = ("open", "write", "sync", "resize", "rename", "unlink", "make_directory")
LIES: Final = (
    "dies", "hangs", "answers nonsense", "says yes to all", "says no to all", "is an impostor",
)  # fmt: skip


HEADER: Final = 4_096
"""Where the frames of a segment begin."""


class Ambush:
    """A fault that waits for the n-th call of a shard to the disk."""

    __slots__ = ("calls", "count", "fate", "power")

    def __init__(self, fate: str, count: int, calls: tuple[str, ...], *, power: bool) -> None:
        self.fate = fate
        self.count = count
        self.calls = calls
        self.power = power


class Damage:
    """A bit that was flipped at rest, and how to set it right again."""

    def __init__(self, path: str, inode: Inode, bit: int) -> None:
        self.path = path
        self._inode = inode
        self._at = bit // 8
        self._was = inode.disk[self._at]
        inode.flip(bit)
        self._is = inode.disk[self._at]

    def undo(self) -> None:
        for image in (self._inode.disk, self._inode.cache):
            if self._at < len(image) and image[self._at] == self._is:
                image[self._at] = self._was


class Faults:
    """The trouble of one history. See `world.Nemesis`."""

    def __init__(self, world: World, count: int) -> None:
        self.cramped = False
        self.runtime: SimRuntime | None = None
        self.power_pending = False
        self.damage: dict[int, Damage] = {}
        self.struck = 0
        self.stop_asked: asyncio.Future[str] | None = None
        self._world = world
        self._chance = world.draw("faults")
        self._calls = world.draw("calls")
        self._left = count
        self._echoes = self._chance.choice((0, 0, 1, 3))
        self._calm = False
        self._ambushes: dict[int, Ambush] = {}
        self._sync_s = 0.0
        self._lossy = 0

    # What the processes ask ---------------------------------------------------------------------

    def fate_of(self, step: str) -> str:
        if not self._lossy or self._calm or step in ("close", "statistics", "pulse"):
            return ""
        self._lossy -= 1
        fate = self._calls.choice(("", "", "lost", "unheard", "late", "twice", "silent"))
        if fate:
            self._world.say("network", f"a call `{step}` is {fate}")
        return fate

    def trouble_of(self, shard: SimShard) -> Trouble:
        number = shard.number

        def trouble(call: str, path: str) -> str:
            ambush = self._ambushes.get(number)
            if ambush is None or call not in ambush.calls:
                return str(self._sync_s) if self._sync_s and call == "sync" else ""
            ambush.count -= 1
            if ambush.count:
                return ""
            del self._ambushes[number]
            self.power_pending = ambush.power
            self._world.say(f"disk {number}", f"{ambush.fate} at {call} {path}")
            if self._echoes and ambush.fate != "short":
                self._echoes -= 1
                self._lay_ambush(shard)  # a start after a crash is broken off as well
            return ambush.fate

        return trouble

    def latency_s(self) -> float:
        return 0.0002 + 0.002 * self._calls.random()

    def pause_before_start_s(self) -> float:
        return 0.01 if self._calm else self._calls.choice((0.0, 0.02, 0.2, 0.7))

    def after_end(self) -> None:
        """Let the power go where the process that ended was to take it along."""
        if self.power_pending:
            self.power_pending = False
            self.lose_power()

    def refused(self, shard: SimShard, error: Exception) -> None:
        """Set the damage right, as an operator with a copy would; without damage it is a lie."""
        damage = self.damage.pop(shard.number, None)
        if damage is None:
            raise Broken(f"shard {shard.number} refuses a log that is sound: {error}")
        if "/snap/" in damage.path and shard.keeps_all:
            raise Broken(f"shard {shard.number} could do without {damage.path}: {error}")
        damage.undo()
        self._world.say("operator", f"sets {damage.path} right again")

    def forgive(self, shard: SimShard) -> None:
        """The shard started in spite of the damage, and nothing is missing: set it right."""
        damage = self.damage.pop(shard.number, None)
        if damage is not None:
            damage.undo()
            self._world.say("operator", f"{damage.path} was not needed")

    # What happens -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Strike now and then until the faults of this history are used up."""
        while self._left:
            self._left -= 1
            await asyncio.sleep(self._chance.choice((0.005, 0.02, 0.05, 0.2)))
            await self._world.up.wait()
            if self.runtime is not None:
                self._strike(self._chance.choice(self._repertoire()))

    def calm(self) -> None:
        """Make no more trouble, and end what lasts."""
        self._calm = True
        self._ambushes.clear()
        self._sync_s = 0.0
        self._lossy = 0
        self.cramped = self._world.disk.full = False
        for verifier in self.runtime.verifiers if self.runtime is not None else ():
            verifier.mode = ""

    def _repertoire(self) -> tuple[str, ...]:
        return (
            "ambush", "ambush", "ambush", "ambush", "ambush", "kill", "kill", "power", "all",
            "clean", "verifier", "verifier", "calls", "calls", "slow", "full", "cramped", "clock",
            "rot", "rot",
        )  # fmt: skip

    def _strike(self, what: str) -> None:
        assert self.runtime is not None
        self.struck += 1
        shard = self._chance.choice(self.runtime.shards)
        match what:
            case "ambush":
                self._lay_ambush(shard)
            case "kill":
                shard.kill("is killed")
            case "power":
                self.lose_power()
            case "all" | "clean":
                self.ask_stop("killed" if what == "all" else "told to stop")
            case "verifier":
                self._spoil(self._chance.choice(self.runtime.verifiers))
            case "calls":
                self._lossy = self._chance.randint(3, 12)
            case "rot":
                self._rot(shard)
            case _:
                self._strike_machine(what)

    def _strike_machine(self, what: str) -> None:
        world, loop = self._world, asyncio.get_running_loop()
        match what:
            case "slow":
                self._sync_s = self._chance.choice((0.1, 1.0, 3.0))
                world.say("disk", f"a sync takes {self._sync_s} s")
                loop.call_later(self._sync_s * 2, self._end_slow)
            case "full":
                world.disk.full = True
                world.say("disk", "is full")
                loop.call_later(self._chance.choice((0.1, 0.5, 2.0)), self._end_full)
            case "cramped":
                self.cramped = True
                world.say("disk", "is nearly full")
                loop.call_later(2.5, self._end_full)
            case "clock":
                step_s = self._chance.choice((-3_600, -1, 1, 30, 86_400))
                world.clock.step(step_s)
                world.say("clock", f"steps by {step_s} s")

    def _end_slow(self) -> None:
        self._sync_s = 0.0

    def _end_full(self) -> None:
        self.cramped = self._world.disk.full = False
        self._world.say("disk", "has room again")

    def _lay_ambush(self, shard: SimShard) -> None:
        chance = self._chance
        fate = chance.choice(("kill", "kill", "killed", "eio", "enospc", "short"))
        power = fate in ("kill", "killed") and chance.random() < 0.6
        count = chance.randint(1, chance.choice((4, 12, 60)))
        calls = (chance.choice(CALLS),) if chance.random() < 0.3 else CHANGING
        if fate == "short":
            calls = ("write",)
        elif fate == "eio" and chance.random() < 0.7:
            calls = ("sync",)
        self._ambushes[shard.number] = Ambush(fate, count, calls, power=power)
        if not shard.is_within and chance.random() < 0.3:
            shard.kill("is killed")  # so that it strikes within the start that follows

    def _spoil(self, verifier: SimVerifier) -> None:
        verifier.mode = self._chance.choice(LIES)
        self._world.say(f"verifier {verifier.number}", verifier.mode)

    def _rot(self, shard: SimShard) -> None:
        """Flip a bit at rest, outside the newest frame: nothing but an answer knows that one."""
        if shard.number in self.damage or shard.number in self._ambushes:
            return
        shard.kill("is killed")
        files = self._world.disk.files_under(str(shard.directory))
        live = _live_segment(files)
        choices = [(path, inode) for path, inode in files if inode.disk]
        if live is None or not choices:
            return
        path, inode = self._chance.choice(choices)
        bit = self._chance.randrange(len(inode.disk) * 8)
        frames = [one for one in choices if one[0].endswith(live) and one[1].last[0] > HEADER]
        if frames and self._chance.random() < 0.5:  # where a torn tail and rot are told apart
            path, inode = frames[0]
            bit = self._chance.randrange(HEADER * 8, inode.last[0] * 8)
        newest = (inode.last, inode.last_synced)
        if path.endswith(live) and any(low <= bit // 8 < high for low, high in newest):
            return
        if any(data is None or at <= bit // 8 < at + len(data) for at, data in inode.dirty):
            return
        self.damage[shard.number] = Damage(path, inode, bit)
        self._world.say(f"disk {shard.number}", f"bit {bit} of {path} rots")

    def lose_power(self) -> None:
        """End every process and forget what was not synced."""
        if self.runtime is None:
            return
        runtime = self.runtime
        for shard in runtime.shards:
            shard.gone = True
            shard.kill("loses power")
        self._world.say("disk", f"after the power loss: {self._world.disk.lose_power()}")
        self.ask_stop("without power")

    def ask_stop(self, how: str) -> None:
        if self.stop_asked is not None and not self.stop_asked.done():
            self.stop_asked.set_result(how)


def _live_segment(files: list[tuple[str, Inode]]) -> str | None:
    for path, inode in files:
        if path.endswith("/MANIFEST") and inode.disk:
            live = decode_manifest(bytes(inode.disk)).live
            return "none" if live is None else live.name
    return None
