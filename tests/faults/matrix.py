"""The drill matrix: who is hurt, how, and when. A cell is a line here; soak_test.py plays it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cell:
    who: str
    what: str
    when: str
    replicas: int = 3
    workers: int = 1
    # Fail-points of the trainers, and of the coordinator (docs/reliability.md).
    trainers: str = ""
    coordinator: str = ""
    # What the drill does itself, by name, once the job has come to step 20.
    hurt: tuple = ()
    # The job may pause in between for at most so many seconds.
    deadline: float = 20

    @property
    def name(self):
        return f"{self.who}, {self.what}, {self.when}, {self.replicas} replicas"


def trainer_dies():
    at = (
        ("while it loads", "trainer.loaded=kill"),
        ("before the rendezvous", "trainer.rendezvous=kill"),
        ("before a forward pass", "trainer.step=kill@23"),
        ("before the all-reduce", "trainer.reduce=kill@31"),
        ("between all-reduce and update", "trainer.before_update=kill@27"),
        ("between update and record", "trainer.after_update=kill@35"),
        ("in validation", "trainer.validate=kill@6"),
        ("after the last step", "trainer.finish=kill"),
    )
    for when, points in at:
        for replicas in (2, 3, 4):
            yield Cell("trainer", "SIGKILL", when, replicas, trainers=points)


def state_transfer_dies():
    for when, point in (("while it sends its state", "trainer.send_state"), ("while it receives state", "trainer.receive_state")):
        yield Cell("trainer and then another", "SIGKILL", when, 3, trainers=f"trainer.step=kill@21,{point}=kill")


def others():
    yield Cell("trainer", "SIGKILL", "while it copies a checkpoint", 3, trainers="trainer.checkpoint.copy=kill@2")
    yield Cell("trainer", "SIGKILL", "while it stores a checkpoint", 3, trainers="trainer.checkpoint.store=kill@2")
    yield Cell("joiner", "SIGKILL", "while it loads", 3, trainers="trainer.step=kill@20,trainer.loaded=kill@1x1", hurt=("kill a trainer",))
    for when, points in (("in a forward pass", "trainer.step=stop@22"), ("in the all-reduce", "trainer.reduce=stop@22"),
                         ("between all-reduce and update", "trainer.before_update=stop@22")):  # fmt: skip
        yield Cell("trainer", "SIGSTOP, later SIGCONT", when, 3, trainers=points, hurt=("wake the stopped",))
    yield Cell("trainer", "exit with an error", "in a step", 3, trainers="trainer.step=exit@22")
    for replicas in (2, 3):
        yield Cell("trainer", "a bit of its state flips", "after an update", replicas, trainers="trainer.flip_bit=error@22")
    apart = "trainer.own_host=error@1x99"
    yield Cell("link", "corrupt frame", "between hosts", 3, trainers=f"{apart},allreduce.corrupt_frame=error@200")
    yield Cell("link", "down, silently", "between hosts", 3, trainers=f"{apart},allreduce.link_down=error@700")
    yield Cell("trainer", "SIGKILL", "in an all-reduce between hosts", 3, trainers=f"{apart},trainer.reduce=kill@25")
    for when, point in (("before a write is durable", "before_commit"), ("after a write is durable", "after_commit")):
        yield Cell("coordinator", "SIGKILL", when, 3, coordinator=f"coordinator.{point}=kill@14", hurt=("restart the coordinator",))
    yield Cell("coordinator", "SIGKILL", "at a random moment", 3, hurt=("kill the coordinator", "restart the coordinator"))
    yield Cell("coordinator", "full disk", "in a write", 3, coordinator="coordinator.full_disk=error@14", hurt=("restart the poisoned coordinator",))
    yield Cell("coordinator", "clock set forward by an hour", "while the job runs", 3, coordinator="clock.jump=error@60")
    yield Cell("worker", "SIGKILL", "at a random moment", 3, workers=2, hurt=("kill a worker", "start another worker"))
    yield Cell("worker and its trainers", "SIGSTOP, later SIGCONT", "at a random moment", 3, workers=2, hurt=("stop a worker", "wake the stopped"))
    yield Cell("two trainers at once", "SIGKILL", "at a random moment", 4, hurt=("kill two trainers",))
    yield Cell("all trainers at once", "SIGKILL", "at a random moment", 3, hurt=("kill all trainers",))
    yield Cell("trainer and coordinator", "SIGKILL", "at once", 3, hurt=("kill the coordinator", "kill a trainer", "restart the coordinator"))
    yield Cell("worker and coordinator", "SIGKILL", "at once", 3, workers=2,
               hurt=("kill the coordinator", "kill a worker", "restart the coordinator", "start another worker"))  # fmt: skip


CELLS = (*trainer_dies(), *state_transfer_dies(), *others())
