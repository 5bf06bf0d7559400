#!/usr/bin/env python3
"""Event files as TensorBoard itself has them; needs `pip install tensorboard`.

event_files.py --golden FILE   writes, with TensorBoard's own classes, what tests/unit/io/event_file_test.cpp expects
event_files.py RUN             reads a run's event files as TensorBoard does and holds them against metrics.jsonl
"""
import json
import math
import struct
import sys

from tensorboard.backend.event_processing import event_accumulator
from tensorboard.compat.proto import event_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

TIME = 1_700_000_000.25


def write_golden(path):
    def event(step, **fields):
        return event_pb2.Event(wall_time=TIME, step=step, **fields)

    def scalars(step, values):
        made = event(step)
        for tag, value in values:
            made.summary.value.add(tag=tag, simple_value=value)
        return made

    text = event(42)
    value = text.summary.value.add(tag="samples/1")
    value.tensor.dtype = 7  # DT_STRING
    value.tensor.tensor_shape.dim.add(size=1)
    value.tensor.string_val.append(b"Once upon a time")
    value.metadata.plugin_data.plugin_name = "text"
    events = [
        event_pb2.Event(wall_time=TIME, file_version="brain.Event:2"),
        event(42, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START)),
        scalars(42, [("train/loss", 3.25), ("moe_imbalance/layer_03", 1.5)]),
        scalars(300_000, [("train/loss", -1e-3)]),
        text,
    ]
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for made in events:
            writer.write(made.SerializeToString())
        writer.flush()


def f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def check_run(folder):
    seen = event_accumulator.EventAccumulator(folder, size_guidance={"scalars": 0, "tensors": 0})
    seen.Reload()
    expected = {}  # (tag, step) -> value
    texts = 0
    with open(f"{folder}/metrics.jsonl") as file:
        for line in file:
            record = json.loads(line)
            step = record.get("step")
            if record["kind"] == "step":
                for key, tag in [("loss", "train/loss"), ("lr", "train/lr"), ("grad_norm", "train/grad_norm"),
                                 ("tokens_per_second", "speed/tokens_per_second"), ("memory_bytes", "memory/bytes")]:
                    expected[tag, step] = record[key]
                for layer in record.get("moe", []):
                    expected[f"moe_imbalance/layer_{layer['layer']:02}", step] = layer["imbalance"]
            elif record["kind"] == "validation":
                expected[f"{record['split']}/loss", step] = record["loss"]
            elif record["kind"] == "sample":
                texts += 1
    problems = 0
    for tag in sorted({tag for tag, _ in expected}):
        got = [(e.step, e.value) for e in seen.Scalars(tag)] if tag in seen.Tags()["scalars"] else []
        want = sorted((step, f32(value)) for (t, step), value in expected.items() if t == tag)
        # A validation at the step where a run was stopped is told again when it goes on.
        if sorted(set(got)) != want or any(math.isnan(value) for _, value in got):
            problems += 1
            print(f"{tag}: TensorBoard sees {len(got)} values, metrics.jsonl has {len(want)}")
    told = sum(len(seen.Tensors(tag)) for tag in seen.Tags()["tensors"])
    if told != texts:
        problems += 1
        print(f"TensorBoard sees {told} texts, metrics.jsonl has {texts}")
    print(f"{folder}: {len(expected)} values of {len({t for t, _ in expected})} curves, {texts} texts, {problems} problems")
    return problems == 0


if len(sys.argv) == 3 and sys.argv[1] == "--golden":
    write_golden(sys.argv[2])
elif len(sys.argv) == 2:
    sys.exit(0 if check_run(sys.argv[1]) else 1)
else:
    sys.exit(__doc__)
