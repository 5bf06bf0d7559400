#!/usr/bin/env bash
# A model several times larger than the memory that is allowed comes and goes: what import and export hold does not
# grow with it. Addresses count too, as under `ulimit -v` or h_vmem.
source "$(dirname "$0")/common.sh"
large_folder=$source_dir/tests/e2e/large_folder.py

there_and_back() {  # NAME: prints the peaks of import and export
  peak_of "$ziggurat" import --from "$1" --output "$1_run" 2>>log
  peak_of "$ziggurat" export --checkpoint "$1_run" --output "$1_back" 2>>log
}

python3 "$large_folder" write small
python3 "$large_folder" write large hidden=1024 ffn=2048 experts=8 vocab=1024  # 57M parameters
weights=$((2 * $(stat -c %s large/model.safetensors)))                           # in f32
small=($(there_and_back small)) || { cat log; fail "a small model"; }
large=($(there_and_back large)) || { cat log; fail "a large model"; }
python3 "$large_folder" compare large large_back || fail "there and back again differs"

# 48 MiB are less than one layer's stack of experts, and a quarter of the weights.
allowed=$((48 << 20))
[ "$weights" -ge $((4 * allowed)) ] || fail "a model too small to tell: $weights bytes"
for i in 0 1; do
  more=$((large[i] - small[i]))
  echo "peak ${large[i]} bytes, of a small model ${small[i]}: $more more for $weights bytes of weights"
  [ $more -le $allowed ] || fail "expected at most $allowed bytes more"
done

# A checkpoint larger than all addresses: 4 bytes a parameter, since moments that are zero take no room.
few_addresses() { (ulimit -v 500000; "$@"); }
rm -r large large_run large_back
python3 "$large_folder" write large hidden=1024 ffn=2048 experts=20 vocab=1024  # 132M parameters
expect_end 0 log few_addresses "$ziggurat" import --from large --output large_run
bytes=$(stat -c %s large_run/checkpoints/*/rank_00000.safetensors)
[ "$bytes" -gt 512000000 ] || fail "a checkpoint too small to tell: $bytes bytes"
[ "$bytes" -lt $((21 * $(stat -c %s large/model.safetensors) / 10)) ] || fail "more than the weights in f32: $bytes bytes"
expect_end 0 log few_addresses "$ziggurat" export --checkpoint large_run --output large_back
python3 "$large_folder" compare large large_back || fail "there and back again under few addresses differs"
