"""Two processes train as one: the same encoder on both, the mean of their gradients."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training import DOMAINS, blink, number, wait_for_step, weights

from umtlib import checkpoint, losses, runs, translator
from umtlib.corpora.batches import Crops
from umtlib.corpora.corpus import Corpus
from umtlib.errors import TrainingError

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
import conftest
from test_team import chosen
from umtlib import runs, training
original, step = training.descend, training.Training.advance
rank = []
def noted(loss, optimizers, rates, *rest):
    if "encoder" in rates and (rank[0].team.rank, rank[0].step) == {bad}:
        loss = loss + float("inf")
    return original(loss, optimizers, rates, *rest)
def advance(self):
    rank[:] = [self]
    return step(self)
training.descend, training.Training.advance = noted, advance
runs.train({corpus!r}, {out!r}, chosen({domains}, {confusion}), {steps}, resume=True, workers=0,
           pace=runs.Pace(2, 100, 4), on_report=lambda line: print(line["step"], flush=True))
state = rank[0]
torch.save(state.model.state_dict(), {out!r} + f"/rank{{state.team.rank}}.pt")
"""


def chosen(domains, confusion=0.01):
    """A small preset for the given domains."""
    preset = blink(learning_rate=1e-3, confusion_weight=confusion)
    return replace(preset, model=replace(preset.model, domains=tuple(domains)))


def launch(corpus, out, domains, steps, confusion=0.01, bad=None):
    """Start two ranks as torchrun does, but for its own start-up time.

    At `bad`, a rank and a step, the loss is infinite, and its gradient is not: nothing that the
    ranks send each other would tell.
    """
    script = SCRIPT.format(
        tests=os.path.dirname(__file__), corpus=str(corpus), out=str(out), domains=tuple(domains),
        confusion=confusion, steps=steps, bad=bad,
    )  # fmt: skip
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [start(["-c", script], **shared, RANK=str(rank)) for rank in (0, 1)]


def start(command, **environment):
    """Start Python with a command, on one thread."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def finish(processes):
    for process in processes:
        output = process.communicate(timeout=600)[0]
        assert process.returncode == 0, output[-3_000:]


def mean_step(corpus, preset, domains_of_ranks):
    """One step as it should be: each part moves by Adam on the mean gradient of its users."""
    model = translator.build(preset.model, preset.training.seed)
    crops = Crops(Corpus(corpus), model.domains, preset.training, "train", 2)
    found = defaultdict(list)
    for rank, domain in enumerate(domains_of_ranks):
        batch = crops[rank]
        assert batch.domain == domain
        latent = model.encode(batch.heard)
        loss = losses.reconstruction(model.decoders[domain](batch.target, latent), batch.target)
        found["encoder"].append(loss)
        found[f"decoders.{domain}"].append(loss)
    for name, mine in found.items():
        parameters = [*model.get_submodule(name).parameters()]
        gradients = torch.autograd.grad(torch.stack(mine).mean(), parameters, retain_graph=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        torch.optim.Adam(parameters, lr=1e-3).step()
    return model


@pytest.mark.parametrize("domains", [DOMAINS, DOMAINS[:1]])
def test_two_ranks_make_the_step_of_the_mean_gradient(corpus, tmp_path, domains):
    out = tmp_path / "run"
    finish(launch(corpus, out, domains, steps=1, confusion=0.0))
    ranks = [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name in ranks[0]:
        assert torch.equal(ranks[0][name], ranks[1][name]), name
    expected = mean_step(corpus, chosen(domains, 0.0), (domains * 2)[:2])
    model = checkpoint.load(out)
    # 1e-6: the order in which two gradients are added.
    for name in ("encoder", *(f"decoders.{domain}" for domain in domains)):
        found, wanted = (weights(one.get_submodule(name)) for one in (model, expected))
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    with pytest.raises(TrainingError, match="by 2 processes"):
        runs.train(corpus, out, chosen(domains, 0.0), 8, resume=True)


def test_all_ranks_skip_a_step_that_is_bad_on_one(corpus, tmp_path):
    runs_ = [(tmp_path / "bad", 2, (1, 1)), (tmp_path / "short", 1, None)]
    for started in [launch(corpus, out, DOMAINS, n, bad=bad) for out, n, bad in runs_]:
        finish(started)
    bad, short = (
        [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
        for out, *_ in runs_
    )
    for rank in (0, 1):
        for name, value in bad[rank].items():
            skipped = not name.startswith("classifier")  # its own step was a good one
            assert torch.equal(value, short[rank][name]) == skipped, name
    log = (tmp_path / "bad" / runs.LOG).read_text().splitlines()
    assert json.loads(log[0])["bad"] == 1


def test_killed_rank_ends_the_other(corpus, tmp_path):
    first, second = launch(corpus, tmp_path / "run", DOMAINS, 100_000)
    try:
        wait_for_step(first, 6)  # a step is told before it is saved; by now step 4 is
        second.kill()
        complaint = first.communicate(timeout=60)[0]
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
    assert first.returncode != 0
    assert "TrainingError: another process of the team has ended" in complaint
    assert number(checkpoint.newest(tmp_path / "run")) >= 4


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for a node's worker")
def test_a_node_is_lost_and_comes_back(corpus, tmp_path):
    """Two nodes of one process each, which find each other as on two machines."""
    whole, out, script = tmp_path / "whole", tmp_path / "run", tmp_path / "train.py"
    alone = launch(corpus, whole, DOMAINS, 40)
    script.write_text(alone[0].args[-1].replace(str(whole), str(out)))
    node = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=3",
            "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--rdzv-id=test",
            "--rdzv-conf=is_host={}", script]  # fmt: skip

    def joined(host):
        return start([str(x).format(host) for x in node], TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")

    started = [first, second] = [joined("true"), joined("false")]
    try:
        deadline = time.monotonic() + 600
        while not checkpoint.checkpoints(out):
            assert first.poll() is None and second.poll() is None
            assert time.monotonic() < deadline, "no checkpoint after ten minutes"
            time.sleep(0.01)
        workers = Path(f"/proc/{second.pid}/task/{second.pid}/children").read_text().split()
        for process in (second.pid, *map(int, workers)):
            os.kill(process, signal.SIGKILL)
        second.communicate()
        assert number(checkpoint.newest(out)) < 40
        started.append(joined("false"))
        finish([first, started[-1], *alone])
    finally:
        for process in (*started, *alone):
            process.terminate()  # with its worker, where it has not ended
    assert torch.equal(*(weights(checkpoint.load(folder)) for folder in (whole, out)))


def test_torchrun_starts_a_team(corpus, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               "-m", "umtlib", "train", "--preset", "tiny", "--data", corpus,
               "--out", tmp_path / "run", "--workers", "0"]  # fmt: skip
    for more in (["--steps", "1"], ["--steps", "2", "--resume"]):
        done = subprocess.run(
            [*command, *more], capture_output=True, text=True, timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3_000:]
    folder = checkpoint.newest(tmp_path / "run")
    progress = json.loads((folder / runs.PROGRESS).read_text())
    assert (number(folder), progress["processes"]) == (2, 2)
