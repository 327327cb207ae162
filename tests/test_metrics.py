import json
import struct

from tensorboardX.proto.event_pb2 import Event

from sparsejax.metrics import MetricsWriter, read


def events(folder):
    """Parses the event files: records of length, checksum, content, checksum."""
    found = []
    for file in sorted((folder / "tensorboard").iterdir()):
        content, position = file.read_bytes(), 0
        while position < len(content):
            (length,) = struct.unpack_from("<Q", content, position)
            record = content[position + 12 : position + 12 + length]
            found.append(Event.FromString(record))
            position += length + 16
    return found


def write_some(folder):
    writer = MetricsWriter(folder)
    for step in range(1, 6):
        writer.write(step, "train", {"loss": 1 / step})
    writer.write(5, "topology", {"density": {"a/kernel": 0.5}, "moves": 1})
    writer.close()


def test_rows_and_events_say_the_same(tmp_path):
    write_some(tmp_path)
    rows = read(tmp_path / "metrics.jsonl")
    assert rows[0] == {"step": 1, "kind": "train", "loss": 1.0}
    assert rows[-1]["density"] == {"a/kernel": 0.5}
    scalars = {
        (value.tag, event.step): value.simple_value
        for event in events(tmp_path)
        for value in event.summary.value
    }
    assert scalars["train/loss", 4] == 0.25
    assert scalars["topology/density/a/kernel", 5] == 0.5


def test_going_on_drops_later_rows_and_an_incomplete_line(tmp_path):
    write_some(tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "kind": "tra')
    writer = MetricsWriter(tmp_path, step=3)
    assert writer.last("train")["step"] == 3
    assert writer.last("topology") is None
    writer.write(4, "train", {"loss": 9.0})
    writer.close()
    steps = [row["step"] for row in read(tmp_path / "metrics.jsonl")]
    assert steps == [1, 2, 3, 4]
    # TensorBoard hides earlier events from a session's first step on.
    starts = [e.step for e in events(tmp_path) if e.HasField("session_log")]
    assert starts[-1] == 4


def test_starting_again_drops_everything(tmp_path):
    write_some(tmp_path)
    MetricsWriter(tmp_path, step=0).close()
    assert read(tmp_path / "metrics.jsonl") == []


def test_a_row_is_on_its_way_as_soon_as_it_is_written(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write(1, "train", {"loss": 0.5})
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] == 0.5
    writer.close()
