#!/usr/bin/env bash
# Import and export that cannot end well: they say what is wrong and with which file, on one rank or two, and leave
# nothing that another command would take for a checkpoint or a model.
source "$(dirname "$0")/common.sh"
large_folder=$source_dir/tests/e2e/large_folder.py

python3 "$large_folder" write good
python3 "$large_folder" write parts files=3
"$ziggurat" import --from good --output run >log 2>&1 || { cat log; fail "import"; }

import() { "$ziggurat" import --from "$1" --output "${2-bad}"; }
import_on_two() { mpirun -n 2 "$ziggurat" import --from "$1" --output "${2-bad}" --shard-size 500KB; }
export_() { "$ziggurat" export --checkpoint "${1-run}" --output "${2-bad}"; }
export_on_two() { mpirun -n 2 "$ziggurat" export --checkpoint "${1-run}" --output "${2-bad}" --shard-size 100KB; }

# One message, whatever the ranks, and nothing left of `bad`.
expect_told() {  # TEXT...
  expect_text log "$@"
  [ "$(grep -c "ziggurat: .* error:" log)" = 1 ] || { cat log; fail "expected one message"; }
  [ -z "$(ls -d bad .bad* 2>/dev/null)" ] || fail "something half-written is left: $(ls -d bad .bad*)"
}

# Where it was to go.
touch file
for place in file/below /proc/no/out; do
  for way in "import good" "import_on_two good" "export_ run" "export_on_two run"; do
    expect_end 3 log $way $place
    expect_told "${place%/*}"
  done
done
for way in "import good" "import_on_two good" "export_ run" "export_on_two run"; do
  expect_end 2 log $way run
  expect_told "run stands already"
done

# No room: in the middle of a file as under a quota, and before anything is written.
few_bytes() { (ulimit -f 100; "$@"); }  # KiB
for way in "import good" "export_ run"; do
  expect_end 3 log few_bytes $way
  expect_told "cannot write" "make room"
done
if mkdir small_disk && mount -t tmpfs -o size=300k tmpfs small_disk 2>/dev/null; then
  trap 'umount "$folder/small_disk"; rm -rf "$folder"' EXIT
  for way in "import good" "import_on_two good" "export_ run" "export_on_two run"; do
    expect_end 3 log $way small_disk/out
    expect_told "small_disk/out would take" "make room"
    [ -z "$(ls -A small_disk)" ] || fail "something is left on the small disk"
  done
fi

# One rank of two runs out of room: it ends the other, which had some. The limit leaves MPI its own files.
python3 "$large_folder" write large hidden=1024 ffn=2048 experts=8 vocab=1024
"$ziggurat" import --from large --output large_run >log 2>&1 || { cat log; fail "import"; }
one_lacks_room() { mpirun -n 2 bash -c '[ "$OMPI_COMM_WORLD_RANK" = 1 ] && ulimit -f 20000; exec "$@"' bash "$@"; }
for way in "import --from large" "export --checkpoint large_run"; do
  expect_end 3 log one_lacks_room "$ziggurat" $way --output bad --shard-size 40MB
  expect_told "cannot write" "make room" "(rank 1 of 2)"
done
rm -r large_run

# Folders that are not what they say. change PYTHON: `header` and `data` of bad_parts' second file, and `index`.
change() {
  rm -rf bad_parts
  cp -r parts bad_parts
  python3 - "$1" <<'PYTHON'
import json, struct, sys
path, index_path = "bad_parts/model-00002-of-00003.safetensors", "bad_parts/model.safetensors.index.json"
blob, index = open(path, "rb").read(), json.load(open(index_path))
length = struct.unpack("<Q", blob[:8])[0]
header, data = json.loads(blob[8 : 8 + length]), blob[8 + length :]
exec(sys.argv[1])
text = json.dumps(header).encode()
open(path, "wb").write(struct.pack("<Q", len(text)) + text + data)
json.dump(index, open(index_path, "w"))
PYTHON
}
norm=model.layers.0.post_attention_layernorm.weight
expect_refused() {  # TEXT...
  for way in import import_on_two; do
    expect_end 3 log $way bad_parts
    expect_told "bad_parts" "$@"
  done
}
change "data = data[:-1001]"
expect_refused model-00002-of-00003.safetensors "cut off"
change "blob = None"
rm bad_parts/model-00003-of-00003.safetensors
expect_refused model-00003-of-00003.safetensors
change "name = list(header)[-1]; size = header[name]['data_offsets']; del header[name]; data = data[: size[0]]; del index['weight_map'][name]"
expect_refused "has no tensor" "is a file missing"
change "header['extra'] = {'dtype': 'F32', 'shape': [1], 'data_offsets': [len(data), len(data) + 4]}; data += b'abcd'; index['weight_map']['extra'] = path[10:]"
expect_refused model-00002-of-00003.safetensors "'extra' has no place"
change "entry = header['model.norm.weight'] if 'model.norm.weight' in header else header[list(header)[-1]]; entry['dtype'] = 'I16'"
expect_refused model-00002-of-00003.safetensors "dtype I16" "the model they were made from"
change "blob = None"
printf '{"a": ' >bad_parts/config.json
expect_refused config.json "no valid JSON"

# A checkpoint that is cut off, or lacks a file: the export says which.
cp -r run cut
truncate -s -1001 cut/checkpoints/*/rank_00000.safetensors
for way in export_ export_on_two; do
  expect_end 3 log $way cut
  expect_told "rank_00000.safetensors is damaged"
done
rm cut/checkpoints/*/rank_00000.safetensors
for way in export_ export_on_two; do
  expect_end 3 log $way cut
  expect_told "rank_00000.safetensors" "No such file"
done

# Killed in the middle, a rank or all: nothing stands at the place, and the same command then does it.
kill_when() {  # FILE COMMAND...: kills a process of the command as soon as the file is there
  local file=$1
  shift
  rm -f pid
  "$@" >log 2>&1 &
  local job=$!
  until compgen -G "$file" >/dev/null; do
    kill -0 $job 2>/dev/null || { cat log; fail "ended before it was killed: $*"; }
    sleep 0.01
  done
  kill -KILL "$(cat pid)"
  wait $job && fail "expected to be killed: $*"
  return 0
}
# The last rank tells its process id.
tell_pid='[ "${OMPI_COMM_WORLD_RANK-1}" = 1 ] && echo $$ >pid; exec "$@"'
told() { sh -c "$tell_pid" sh "$@"; }
on_two() { mpirun -n 2 sh -c "$tell_pid" sh "$@"; }
for ranks in told on_two; do
  kill_when ".killed.tmp/checkpoints/.step_00000000.tmp/rank_*" $ranks "$ziggurat" import --from large --output killed \
    --shard-size 50MB
  [ ! -e killed ] || fail "an import that was killed left its folder"
  expect_end 3 log "$ziggurat" export --checkpoint killed --output bad
  expect_end 3 log "$ziggurat" export --checkpoint .killed.tmp --output bad
  expect_told "no complete checkpoint"
  expect_end 0 log "$ziggurat" import --from large --output killed
  [ ! -e .killed.tmp ] || fail "what was left is still there"

  kill_when ".killed_hf.tmp/model*" $ranks "$ziggurat" export --checkpoint killed --output killed_hf --shard-size 50MB
  [ ! -e killed_hf ] || fail "an export that was killed left its folder"
  expect_end 3 log "$ziggurat" import --from .killed_hf.tmp --output bad
  expect_told "config.json"
  expect_end 0 log "$ziggurat" export --checkpoint killed --output killed_hf
  python3 "$large_folder" compare large killed_hf
  rm -r killed killed_hf
done

# Two jobs for one place: the later one is refused by the name of the other, who stops and goes on, and is whole.
begun_and_stopped() {  # FILE COMMAND...: a process of the command is stopped as soon as the file is there
  local file=$1
  shift
  rm -f pid
  "$@" >first 2>&1 &
  job=$!
  until compgen -G "$file" >/dev/null; do
    kill -0 $job 2>/dev/null || { cat first; fail "ended before it was stopped: $*"; }
    sleep 0.01
  done
  kill -STOP "$(cat pid)"
}
expect_first_goes_on() {
  expect_text log ".twice.lock is held by another job that is alive: pid" "choose another output folder"
  [ -e .twice.tmp ] && [ ! -e twice ] || fail "the second job touched the place"
  kill -CONT "$(cat pid)"
  wait $job || { cat first; fail "the first job failed"; }
  [ -z "$(ls -d .twice* 2>/dev/null)" ] || fail "left beside the folder: $(ls -d .twice*)"
}
for ranks in told on_two; do
  begun_and_stopped ".twice.tmp/checkpoints/.step_00000000.tmp/rank_*" $ranks "$ziggurat" import --from large \
    --output twice --shard-size 50MB
  expect_end 2 log import good twice
  expect_first_goes_on
  mv twice imported
  begun_and_stopped ".twice.tmp/model*" $ranks "$ziggurat" export --checkpoint imported --output twice --shard-size 50MB
  expect_end 2 log export_ run twice
  expect_first_goes_on
  python3 "$large_folder" compare large twice
  expect_end 2 log export_ run twice
  expect_text log "twice stands already"
  rm -r imported twice
done
