from __future__ import annotations

import pytest

from pipeline.data import plan as plan_module
from pipeline.data.corpora import found as found_module
from pipeline.data.corpora.base import CorpusFacts
from pipeline.data.corpora.catalogue import Catalogue, SplitRule
from pipeline.data.corpora.discover import Source, discover
from pipeline.data.plan import (
    DISCOVERY,
    MIN_UNIT_CLIPS,
    PLAN,
    input_digests,
    plan_units,
    rows_of,
)
from pipeline.data.rejects import Reason, reject
from pipeline.errors import SettingsError
from pipeline.storage import Folder
from tests.factories.corpora import found_in, write_corpus


def found(tmp_path):
    store = Folder.at(tmp_path / "work" / DISCOVERY)
    return found_in(store, tmp_path / "in", default_modality="sound")


def plan(tmp_path, unit_clips=2):
    discovery = found(tmp_path)
    return plan_units(discovery, Folder.at(tmp_path / "work"), unit_clips), discovery


def ids(units):
    return {
        unit.name: [clip["clip_id"] for clip in rows_of(unit)["clips"]]
        + [reject["uri"].rpartition("/")[2] for reject in rows_of(unit)["rejects"]]
        for unit in units
    }


def digests(units):
    return [(unit.name, unit.digest) for unit in units]


def test_every_item_is_in_one_unit(tmp_path):
    write_corpus(tmp_path / "in", {f"{n}.wav": b"x" for n in "abc"} | {"bad.csv": "x"})
    units, _ = plan(tmp_path)
    assert ids(units) == {"00000000": ["in/a.wav", "in/b.wav"], "00000001": ["in/c.wav", "bad.csv"]}


def test_units_are_ranges_of_what_was_found_and_old_files_go(tmp_path):
    write_corpus(tmp_path / "in", {f"{n}.wav": b"x" for n in "bcde"})
    units, discovery = plan(tmp_path)
    assert plan_units(discovery, Folder.at(tmp_path / "new"), 2, is_kept=False) == units
    assert not (tmp_path / "new").exists()
    (file,) = (path.name for path in (tmp_path / "work" / DISCOVERY).iterdir())
    assert [unit.payload["ranges"] for unit in units] == [[(file, 0, 2)], [(file, 2, 2)]]
    before = ids(units)
    write_corpus(tmp_path / "in", {"a.wav": b"x", "c1.wav": b"x"})
    more, _ = plan(tmp_path)
    (other,) = (path.name for path in (tmp_path / "work" / DISCOVERY).iterdir())
    assert other != file
    assert [unit.payload["ranges"] for unit in more] == [
        [(other, 1, 2)],
        [(other, 4, 2)],
        [(other, 0, 1), (other, 3, 1)],
    ]
    assert ids(more) == before | {"00000002": ["in/a.wav", "in/c1.wav"]}


def test_ranges_cross_groups_and_files(tmp_path, monkeypatch):
    monkeypatch.setattr(found_module, "GROUP_ROWS", 2)
    monkeypatch.setattr(found_module, "PART_ROWS", 4)
    write_corpus(tmp_path / "in", {f"{n}.wav": b"x" for n in "abcdefghi"})
    units, discovery = plan(tmp_path, unit_clips=3)
    assert [part.num_rows for part in discovery.corpora[0].parts] == [4, 4, 1]
    assert [len(unit.payload["ranges"]) for unit in units] == [1, 2, 2]
    assert [name for clips in ids(units).values() for name in clips] == [
        f"in/{n}.wav" for n in "abcdefghi"
    ]


def test_two_inputs_with_one_name_of_a_corpus_or_clip_are_refused(tmp_path):
    store = Folder.at(tmp_path / "store")
    folders = [write_corpus(tmp_path / n / "in", {"b/c.wav": b"x"}) for n in ("one", "two")]
    with pytest.raises(
        SettingsError, match=r"two corpora are called 'b': .*one/in/b and .*two/in/b"
    ):
        found_in(store, *folders)
    rule = SplitRule(validation_share=0, test_share=0, min_speakers=3, is_declared_kept=True)
    facts = CorpusFacts(default_modality="sound")
    names = {"a": folders[0], "a/b": write_corpus(tmp_path / "three", {"c.wav": b"x"})}
    sources = [
        Source(uri=str(path), name=name, layout="folder", facts=facts)
        for name, path in names.items()
    ]
    discovery = discover(sources, rule, store)
    with pytest.raises(SettingsError, match=r"two clips are called 'a/b/c\.wav'"):
        plan_units(discovery, Folder.at(tmp_path / "work"))


def test_new_clips_make_new_units_and_leave_the_others_alone(tmp_path):
    write_corpus(tmp_path / "in", {f"{n}.wav": b"x" for n in "bcd"})
    before, _ = plan(tmp_path)
    listed = ids(before)
    write_corpus(tmp_path / "in", {"a.wav": b"x"})
    after, _ = plan(tmp_path)
    assert digests(after)[: len(before)] == digests(before)
    assert ids(after) == listed | {"00000002": ["in/a.wav"]}


def test_a_changed_file_changes_only_its_unit_and_a_removed_one_empties_it(tmp_path):
    write_corpus(tmp_path / "in", {f"{n}.wav": b"x" for n in "abcd"})
    before, _ = plan(tmp_path)
    write_corpus(tmp_path / "in", {"b.wav": b"longer"})
    (tmp_path / "in" / "c.wav").unlink()
    (tmp_path / "in" / "d.wav").unlink()
    after, _ = plan(tmp_path)
    assert ids(after) == {"00000000": ["in/a.wav", "in/b.wav"]}
    assert after[0].digest != before[0].digest


def test_the_plan_is_written_only_when_it_changes(tmp_path):
    write_corpus(tmp_path / "in", {"a.wav": b"x"})
    plan(tmp_path)
    (table,) = (tmp_path / "work" / PLAN).iterdir()
    first = table.stat().st_mtime_ns
    plan(tmp_path)
    assert table.stat().st_mtime_ns == first


def test_a_large_plan_has_units_of_more_clips(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_module, "TARGET_UNITS", 3)
    table = "".join(f"a.wav,{n},{n + 1},x\n" for n in range(3 * MIN_UNIT_CLIPS + 1))
    write_corpus(tmp_path / "in", {"a.wav": b"x", "t.csv": f"file,start_s,end_s,caption\n{table}"})
    units, _ = plan(tmp_path, unit_clips=None)
    assert len(rows_of(units[0])["clips"]) == MIN_UNIT_CLIPS + 1


def test_alike_rejects_are_all_planned(tmp_path):
    catalogue = Catalogue()
    for _ in range(3):
        catalogue.add_reject(reject(Reason.UNCLAIMED, "x", corpus="in", uri="bad.csv"))
    assert len({item.key for item in catalogue.planned("in")}) == 3


def test_input_digests_see_rows_but_not_times(tmp_path):
    write_corpus(tmp_path / "in", {"a.wav": b"x"})
    _, first = plan(tmp_path)
    (tmp_path / "in" / "a.wav").write_bytes(b"y")
    _, second = plan(tmp_path)
    assert input_digests(first) == input_digests(second)
    write_corpus(tmp_path / "in", {"b.wav": b"z"})
    assert input_digests(first) != input_digests(plan(tmp_path)[1])


def test_big_files_make_units_of_fewer_clips(tmp_path):
    write_corpus(tmp_path / "in", {f"{n}.wav": b"x" * 10 for n in "abcd"})
    units = plan_units(found(tmp_path), Folder.at(tmp_path / "work"), 64, unit_bytes=25)
    assert [len(rows_of(unit)["clips"]) for unit in units] == [2, 2]


def test_spans_of_a_file_are_planned_together_in_the_order_of_time(tmp_path):
    rows = [("b", 3), ("a", 9), ("b", 1), ("a", 2), ("b", 2), ("a", 5)]
    table = "".join(f"{name}.wav,{start},{start + 1},x\n" for name, start in rows)
    files = {"a.wav": b"x", "b.wav": b"x", "t.csv": f"file,start_s,end_s,caption\n{table}"}
    write_corpus(tmp_path / "in", files)
    before, _ = plan(tmp_path, unit_clips=4)
    assert ids(before) == {
        "00000000": ["in/b@1", "in/b@2", "in/b@3", "in/a@2"],
        "00000001": ["in/a@5", "in/a@9"],
    }
    assert plan(tmp_path, unit_clips=4)[0] == before
    more = table.replace("a.wav,9", "a.wav,0,1,x\na.wav,9")
    write_corpus(tmp_path / "in", {"t.csv": f"file,start_s,end_s,caption\n{more}"})
    after, _ = plan(tmp_path, unit_clips=4)
    assert digests(after)[:2] == digests(before)
    assert ids(after)["00000002"] == ["in/a@0"]
