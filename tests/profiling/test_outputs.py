"""What the profiler writes can be read by the tools it is written for."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from opentrn.errors import OpenTrnError
from opentrn.profiling import contract
from opentrn.profiling.compare import compare
from opentrn.profiling.html import page
from opentrn.profiling.perfetto import trace_bytes
from opentrn.profiling.table import instructions, write_parquet

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "profile.schema.json"


@pytest.fixture(scope="module")
def document(matmul_profile):
    return json.loads(json.dumps(contract.document("trn2", [matmul_profile])))


def test_the_json_matches_its_published_schema(document):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))


def test_the_json_has_every_key_that_tools_rely_on(document):
    keys = {"name", "source", "latency_us", "engine_busy_us", "dma_busy_us", "hbm_bytes", "flops", "mfu", "mbu", "energy_j",
            "critical_path", "sbuf_peak_bytes", "psum_peak_bytes"}  # fmt: skip
    assert keys <= set(document["launches"][0])
    assert document["launches"][0]["name"] == "tiled_matmul"


def test_the_table_has_a_row_an_instruction_and_sums_to_the_totals(matmul_profile):
    table = instructions(matmul_profile)
    assert table.num_rows == len(matmul_profile.timeline)
    import pyarrow.compute as pc

    assert pc.sum(table["flops"]).as_py() == matmul_profile.timeline.total_flops
    assert pc.sum(table["hbm_read_bytes"]).as_py() == matmul_profile.metrics["hbm_read_bytes"]
    assert set(table["name"].to_pylist()) == {"dma_copy", "nc_matmul", "tensor_copy"}


def test_parquet_files_read_back(matmul_profile, tmp_path):
    import pyarrow.parquet as pq

    (path,) = write_parquet([matmul_profile], str(tmp_path / "rows"))
    assert pq.read_table(path).num_rows == len(matmul_profile.timeline)
    assert [p.name for p in (tmp_path / "rows").iterdir()] == [path.name], "no temporary file is left"


def test_the_trace_parses_and_its_slices_nest_and_carry_flows(matmul_profile):
    pb = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    trace = pb.Trace()
    trace.ParseFromString(trace_bytes([matmul_profile]))
    depth: dict[int, int] = {}
    begins = flows = ends_of_flows = 0
    for packet in sorted((p for p in trace.packet if p.HasField("track_event")), key=lambda p: p.timestamp):
        event = packet.track_event
        if event.type == pb.TrackEvent.TYPE_SLICE_BEGIN:
            begins += 1
            depth[event.track_uuid] = depth.get(event.track_uuid, 0) + 1
            flows += len(event.flow_ids)
            ends_of_flows += len(event.terminating_flow_ids)
        elif event.type == pb.TrackEvent.TYPE_SLICE_END:
            depth[event.track_uuid] -= 1
    assert begins == len(matmul_profile.timeline)
    assert set(depth.values()) == {0}, "every slice that begins ends"
    assert flows and ends_of_flows >= flows


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_the_page_renders_in_a_real_browser(matmul_profile, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page([matmul_profile], "kernel.py"))
    dom = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=90,
    ).stdout  # fmt: skip
    assert "tiled_matmul" in dom and "What would help" in dom and "Critical path" in dom
    assert dom.count("<canvas") == 5, "the timeline and four plots were made"


def test_the_page_is_self_contained(matmul_profile):
    text = page([matmul_profile], "<script>alert(1)</script>")
    assert "http://" not in text and "https://" not in text
    assert "<script>alert(1)" not in text


def test_comparing_a_run_with_itself_finds_no_change(document):
    assert all(row.base == row.new for row in compare(document, document))


def test_runs_without_a_common_kernel_are_refused(document):
    launch = document["launches"][0]
    one = {"chip": "trn2", "launches": [dict(launch, name="a"), dict(launch, name="b")]}
    other = {"chip": "trn2", "launches": [dict(launch, name="c"), dict(launch, name="d")]}
    with pytest.raises(OpenTrnError, match="no kernel in common"):
        compare(one, other)


def test_an_unwritable_path_is_one_sentence_and_leaves_nothing(tmp_path):
    with pytest.raises(OpenTrnError, match="cannot write"):
        contract.write_atomically(tmp_path / "missing" / "out.json", "{}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_profile_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(OpenTrnError, match="holds no launches"):
        contract.load(str(tmp_path / "x.json"))
    with pytest.raises(OpenTrnError, match="does not exist"):
        contract.load(str(tmp_path / "y.json"))
