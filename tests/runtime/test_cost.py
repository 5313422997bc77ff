"""What a step costs on many machines (`nnc plan --ranks`): the model against cases computed by hand and against what
the sums really send, what is measured for it, and the command."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import click
import numpy as np
import pytest

import nnc
from nnc.dsl.errors import NncError
from nnc.runtime.cli import main
from nnc.runtime.cli.cluster import Network, draw, predicted
from nnc.runtime.distributed import cost as model
from nnc.runtime.distributed.cost import Cluster, Cost, Stage, Step, Vector, cost, costs, pays_until
from nnc.runtime.distributed.sums import TreeSum
from nnc.runtime.train import timed

NET = """
model Net(x: f32[B, 6]) -> (y: f32[B, 3]) { y = x |> Dense(4) |> relu |> Dense(3) }
train Net(x, label: i32[B]) {
    loss = mean(cross_entropy(y, label))
    optimizer = SGD(lr = 0.1)
    batch = 32
}
"""
SHORT = Vector(4000)  # each rank adds all of it
LONG = Vector(1 << 20)  # each rank adds a piece
FAST = Cluster(2, 1e30, 0.0, 1)


def step(*vectors: Vector, **changed: Any) -> Step:
    stage = Stage({2: 1e-3}, 5e-4, vectors)
    return replace(Step({8: 1}, 4, 2, (stage,), update=2e-4, rest=1e-4, add=0.0, copy=0.0), **changed)


@pytest.fixture(autouse=True)
def awake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits sees at once what comes."""
    monkeypatch.setattr(model, "pause", lambda waited: 0.0)


@pytest.fixture
def without_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MESSAGE", 0.0)


# --- the model --------------------------------------------------------------------------------------------------------


def test_one_rank_has_all_shards_and_exchanges_nothing() -> None:
    found = cost(step(LONG), replace(FAST, ranks=1))
    assert found == Cost(1, pytest.approx(4 * 1.5e-3), 0.0, 2e-4, 1e-4)
    assert found.seconds == pytest.approx(6.3e-3)


def test_a_short_vector_is_sent_whole() -> None:
    found = cost(step(SHORT, add=1e-9), Cluster(2, 4e6, 2e-3, 1))
    # 4000 bytes at 4 MB/s, one to send and one to receive, one vector added to one's own
    assert found.exchange == pytest.approx(1e-3 + 2e-3 + 2 * model.MESSAGE + 4000e-9)
    assert found.shards == pytest.approx(2 * 1.5e-3) and found.update == 2e-4


def test_a_long_vector_is_sent_in_pieces_and_so_are_their_sums() -> None:
    piece = (1 << 20) / 4
    found = cost(step(LONG, add=1e-9), Cluster(4, 1e9, 1e-5, 1))
    messages = 12 * model.MESSAGE * 2  # 3 to send and 3 to receive, twice; each is agreed upon
    assert found.exchange == pytest.approx(6 * piece / 1e9 + 2e-5 + messages + 3 * piece * 1e-9)


@pytest.mark.usefixtures("without_messages")
def test_three_ranks_share_eight_shards_unevenly() -> None:
    """2, 3 and 3 shards; three neighbours are a pair and one, so that two vectors are sent of them."""
    found = cost(step(SHORT, shards=8, length=1, add=1e-9, stages=(Stage({1: 1e-3}, 0.0, (SHORT,)),)),
                 Cluster(3, 1e6, 0.0, 1))  # fmt: skip
    assert found.shards == pytest.approx(3e-3)
    assert found.exchange == pytest.approx(2 * 2 * 4000 / 1e6 + 4 * 4000e-9)


def test_a_last_batch_has_shards_of_other_lengths_and_none() -> None:
    lengths = Stage({2: 1e-3, 1: 6e-4, 0: 1e-5}, 0.0, (SHORT,))
    found = cost(step(stages=(lengths,), batches={8: 3, 3: 1}), replace(FAST, ranks=2))
    assert found.shards == pytest.approx((3 * 2e-3 + (1e-3 + 6e-4)) / 4)


def test_every_stage_waits_for_all() -> None:
    one = cost(step(SHORT), Cluster(2, 1e9, 1e-4, 1))
    two = cost(replace(step(), stages=2 * step(SHORT).stages), Cluster(2, 1e9, 1e-4, 1))
    assert two.exchange == pytest.approx(2 * one.exchange) and two.shards == pytest.approx(2 * one.shards)


def test_ranks_of_a_host_share_its_processors() -> None:
    own = 1.5e-3
    shards = {n: cost(step(), Cluster(n, 1e30, 0.0, 2, per_host=n)).shards for n in (1, 2, 3, 4)}
    assert shards == pytest.approx({1: 4 * own, 2: 2 * own, 3: 3 * own, 4: 2 * own})  # 3: of 1, 1 and 2 shards
    assert cost(step(), Cluster(4, 1e30, 0.0, 2, per_host=2)).shards == pytest.approx(own)
    assert cost(step(), Cluster(4, 1e30, 0.0, 4, per_host=4, threads=2)).shards == pytest.approx(2 * own)
    assert cost(step(), Cluster(1, 1e30, 0.0, 1, threads=2)).shards == pytest.approx(8 * own)


@pytest.mark.usefixtures("without_messages")
def test_ranks_that_share_a_processor_look_in_vain() -> None:
    def exchange(vector: Vector, per_host: int, bandwidth: float = 1e30) -> float:
        return cost(step(vector), Cluster(4, bandwidth, 0.0, 2, per_host=per_host, per_link=1)).exchange

    assert exchange(SHORT, 2) == pytest.approx(0.0)
    assert exchange(SHORT, 4) == pytest.approx(2 * model.VAIN)
    assert exchange(LONG, 4) == pytest.approx(2 * 2 * model.VAIN)
    assert exchange(SHORT, 4, 1e6) == pytest.approx(3 * 4000 / 1e6), "while the messages are on their way"


@pytest.mark.usefixtures("without_messages")
def test_a_host_has_a_link_and_in_it_there_is_memory() -> None:
    far = cost(step(SHORT), Cluster(4, 1e6, 1e-3, 2, per_host=2))
    assert far.exchange == pytest.approx(1e-3 + 2 * 2 * 4000 / 1e6)  # two ranks send to two
    near = cost(step(SHORT, copy=1e-9), Cluster(2, 1e6, 0.0, 2, per_host=2))
    assert near.exchange == pytest.approx(2 * 4000e-9)  # into memory that both see, and out of it
    apart = cost(step(SHORT), Cluster(2, 1e6, 0.0, 2, per_host=2, per_link=1))
    assert apart.exchange == pytest.approx(4000 / 1e6)


@pytest.mark.usefixtures("without_messages")
def test_what_is_complete_early_travels_while_the_last_shard_is_computed() -> None:
    def left(*ready: float) -> float:
        return cost(step(*(Vector(4000, r) for r in ready)), Cluster(2, 1e7, 0.0, 1)).exchange

    travel = 4e-4
    assert left(1.0, 1.0) == pytest.approx(2 * travel)
    assert left(0.5, 1.0) == pytest.approx(travel)  # 5e-4 before the end
    assert left(0.9, 1.0) == pytest.approx(2 * travel - 1e-4)
    assert left(0.1) == 0


@pytest.mark.usefixtures("without_messages")
def test_who_sleeps_sees_late_that_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "pause", lambda waited: waited / 10)
    found = cost(
        step(SHORT, shards=8, batches={16: 1}), Cluster(3, 1e6, 0.0, 1)
    ).exchange  # 2, 3 and 3 shards of 1.5 ms
    travel = 4 * 4000 / 1e6
    assert found == pytest.approx(travel + (1.5e-3 + travel) / 10 * 2 / 3)  # the last of two to look


class Recorded:
    """What a rank of several would send, as `TreeSum` plans it, without MPI."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size

    def tag(self) -> int:
        return 0


@pytest.mark.parametrize("nbytes", [4096, 1 << 20])
@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_as_many_messages_and_bytes_as_the_sums_send(n: int, nbytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [TreeSum(Recorded(rank, n), 16, nbytes // 4, "f4") for rank in range(n)]  # type: ignore[arg-type]

    def nbytes_of(views: Iterable[tuple[Any, int]]) -> int:
        return sum(view.nbytes for view, _ in views)

    gathered = 0 if plans[0]._direct else 2 * (n - 1)
    messages = max(len(p._sent) + len(p._received) + gathered for p in plans)
    ways = [max(nbytes_of(p._sent), nbytes_of(p._received)) for p in plans]
    if gathered:
        pieces = [p._pieces[p.rank] for p in plans]
        own = [4 * (piece.stop - piece.start) for piece in pieces]
        ways = [way + max((n - 1) * mine, nbytes - mine) for way, mine in zip(ways, own, strict=True)]
    uneven = 1e-3 * nbytes  # pieces begin where cache lines do
    some = step(Vector(nbytes), shards=16, length=1, stages=(Stage({}, 0.0, (Vector(nbytes),)),))
    monkeypatch.setattr(model, "EAGER", 1 << 30)
    assert cost(some, replace(FAST, ranks=n)).exchange == pytest.approx(messages * model.MESSAGE)
    monkeypatch.setattr(model, "MESSAGE", 0.0)
    assert cost(some, Cluster(n, 1.0e9, 0.0, 1)).exchange * 1e9 == pytest.approx(max(ways), abs=uneven)


def test_where_it_stops_paying() -> None:
    def of(**seconds: float) -> list[Cost]:
        return [Cost(int(n[1:]), s, 0.0, 0.0, 0.0) for n, s in seconds.items()]

    assert pays_until(of(n1=10, n2=6, n4=4.7, n8=4)) == 2
    assert pays_until(of(n1=10, n2=6, n3=5)) is None
    assert pays_until(of(n1=10)) is None


def test_powers_of_two_and_the_number_itself() -> None:
    assert [c.ranks for c in costs(step(shards=16), replace(FAST, ranks=12))] == [1, 2, 4, 8, 12]
    assert [c.ranks for c in costs(step(shards=16), replace(FAST, ranks=8))] == [1, 2, 4, 8]
    with pytest.raises(NncError, match="E0603"):
        costs(step(), replace(FAST, ranks=5))


# --- what is measured -------------------------------------------------------------------------------------------------


def test_the_parts_of_a_step_are_measured_at_the_sizes_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed, "SECONDS", 0.0)
    net = nnc.compile(NET, seed=1, threads=1)
    x, label = np.ones((75, 6), np.float32), np.zeros(75, np.int32)
    found = timed.timed(net, [x, label], 32, 4)
    assert (found.batches, found.shards, found.length) == ({32: 2, 11: 1}, 4, 8)
    (stage,) = found.stages
    assert set(stage.seconds) == {8, 3, 0} and all(s > 0 for s in stage.seconds.values())
    assert sum(v.nbytes for v in stage.vectors) >= 4 * (1 + 4 * 6 + 4 + 3 * 4 + 3)
    assert all(v.ready == 1.0 for v in stage.vectors), "a shard is too short for sums to be handed on meanwhile"
    assert min(stage.adding, found.update, found.rest, found.add, found.copy) > 0


def test_when_sums_are_complete_is_seen_where_they_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed, "SECONDS", 0.0)
    monkeypatch.setattr(timed, "WORTH", 0.0)
    net = nnc.compile(NET, seed=1, threads=1)
    (stage,) = timed.timed(net, [np.ones((32, 6), np.float32), np.zeros(32, np.int32)], None, 4).stages
    assert all(0 < v.ready <= 1 for v in stage.vectors) and stage.vectors[-1].ready == 1.0


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "wanted"), [
    ("100Gb", (12.5e9, 1e-5)), ("25Gb,2us", (3.125e9, 2e-6)), ("10GB, 0.1ms", (1e10, 1e-4)), ("800 Mbps", (1e8, 1e-5)),
    ("1.5TB/s,500ns", (1.5e12, 5e-7)), ("10Gbit/s,1 µs", (1.25e9, 1e-6)),
])  # fmt: skip
def test_networks_are_read_with_their_units(text: str, wanted: tuple[float, float]) -> None:
    assert Network().convert(text, None, None) == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["", "100", "100G", "100gb", "-1Gb", "0Gb", "1.2.3Gb", "GB", "10GBit", "1Gb,", "1Gb,2",
                                  "1Gb,2h", "1Gb,2us,3", "9" * 400 + "Gb"])  # fmt: skip
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="such as"):
        Network().convert(text, None, None)


TABLE = """
 ranks      step     epoch   speed-up   efficiency    shards   exchange   update     rest
 ----------------------------------------------------------------------------------------
     1   6.30 ms   12.6 ms       1.00         100%   6.00 ms              200 us   100 us
     2   4.60 ms   9.19 ms       1.37          69%   3.00 ms    1.30 ms   200 us   100 us
     4   3.72 ms   7.43 ms       1.69          42%   1.50 ms    1.92 ms   200 us   100 us
Net: batches of 8 in 4 shards, 1.0 MB of sums
hosts like this one, with 2 processors for 1 rank of 2 threads; links of 8 Gb/s and 100 us
stops paying at 2: twice the ranks make a step less than 1.3 times as quick
"""


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    facts = predicted(step(LONG, batches={8: 2}), Cluster(4, 1e9, 1e-4, 2, threads=2), True)
    draw("Net", facts)
    shown = capsys.readouterr().out.replace("─", "-")
    assert [line.rstrip() for line in shown.splitlines() if line.strip()] == TABLE.strip("\n").splitlines()


@pytest.fixture
def net(tmp_path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(timed, "SECONDS", 0.0)
    file = tmp_path / "net.nn"
    file.write_text(NET, "utf-8")
    return str(file)


def test_the_command_measures_and_predicts(net, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", net, "--ranks", "32", "--network", "10Gb,1us", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [r["ranks"] for r in found["rows"]] == [1, 2, 4, 8, 16, 32]
    assert found["shards"] == found["batch"] == 32 and found["bandwidth"] == 1.25e9 and found["latency"] == 1e-6
    for r in found["rows"]:
        assert r["seconds"] == pytest.approx(sum(r[part] for part in ("shards", "exchange", "update", "rest")))
        assert r["speed_up"] == pytest.approx(r["efficiency"] * r["ranks"]) and r["epoch"] is None
    assert main(["plan", net, "--ranks", "2", "--network", "10Gb", "--batch", "64"]) == 0
    out = capsys.readouterr().out
    assert "batches of 64 in 16 shards" in out and "10 Gb/s and 10.0 us" in out and "epoch" not in out


@pytest.mark.parametrize(("options", "code", "wanted"), [
    (["--ranks", "4"], 2, "with --network"), (["--network", "1Gb"], 2, "for --ranks"),
    (["--shards", "4"], 2, "for --ranks"),
    (["--ranks", "4", "--network", "1Gb", "--entry", "train"], 2, "without --entry"),
    (["--ranks", "9", "--network", "1Gb", "--shards", "8", "--threads", "1"], 1, "E0603"),
    (["--ranks", "2", "--network", "1Gb", "--threads", "1024"], 1, "measured here"),
    (["--ranks", "2", "--network", "100"], 2, "100Gb"),
])  # fmt: skip
def test_what_does_not_go_together(net, options, code, wanted, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", net, *options]) == code
    assert wanted in capsys.readouterr().err


def test_sizes_that_nobody_knows_are_asked_for(net, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.nn"
    file.write_text(NET.replace("x: f32[B, 6]", "x: f32[B, T, 6]").replace("y = x", "y = mean(x, axis = 1)"), "utf-8")
    given = ["plan", str(file), "--ranks", "2", "--network", "1Gb", "--threads", "1"]
    assert main(given) == 1 and "--at T=64" in capsys.readouterr().err
    assert main([*given, "--at", "T=5", "--at", "B=5"]) == 1 and "size of the examples" in capsys.readouterr().err
    assert main([*given, "--at", "T=5"]) == 0
