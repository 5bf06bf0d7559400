#!/usr/bin/env bash
# Looking at runs: samples while training, TensorBoard's files, `top`, and the report, which a browser draws without an
# error. The browser is Debian's chromium, where it is installed.
source "$(dirname "$0")/common.sh"

cp -r "$source_dir/src/config" text
"$ziggurat" data train-tokenizer --input text --vocab-size 512 --output tokenizer >log 2>&1
"$ziggurat" data tokenize --input text --tokenizer tokenizer --output data --split 0.9,0.1,0 >>log 2>&1 || { cat log; fail "data"; }
printf 'the value of\n\n<script>alert("x")</script>\n' >prompts.txt
cat >config.yaml <<'YAML'
name: looked_at
output: one
precision: fp32
model:
  vocab_size: 512
  max_sequence: 32
  hidden: 32
  heads: 4
  blocks: [{repeat: 2, pattern: [{ffn: dense}, {ffn: residual_moe, experts: 4, expert_parallel: 2}]}]
batch: {sequence_length: 32, micro_batch: 4, global_batch: 8}
train: {tokens: 7680}   # 30 steps
optimizer: {lr: 3.0e-3, min_lr: 3.0e-4, warmup_tokens: 1K, decay_tokens: 7680}
eval: {every: 10, sequences: 8, prompts: prompts.txt, samples_every: 20}
checkpoint: {every: 10}
data: {train: data, valid: data, tokenizer: tokenizer}
YAML

# In two starts: 20 steps, and the rest.
expect_end 0 log mpirun -n 2 "$ziggurat" train config.yaml train.tokens=5120 optimizer.decay_tokens=5120
expect_text log 'sample 1: "the value of' 'sample 2: "<script>'
expect_end 0 log mpirun -n 2 "$ziggurat" train config.yaml checkpoint.allow_schedule_changes=true
[ "$(grep -c '"kind":"sample"' one/metrics.jsonl)" = 4 ] || fail "expected two prompts at two steps"
[ "$(ls one/events.out.tfevents.* | wc -l)" = 2 ] || fail "expected an event file for each start"
expect_end 0 log "$ziggurat" train config.yaml output=other optimizer.lr=1e-3 eval.prompts='""'
expect_end 0 log "$ziggurat" train config.yaml output=other train.tokens=7680 checkpoint.allow_schedule_changes=true
expect_text log "the goal is reached already"

expect_end 2 log "$ziggurat" train config.yaml output=bad eval.prompts=nowhere.txt
expect_text log "eval.prompts: nowhere.txt cannot be opened"

expect_end 0 log "$ziggurat" top one
expect_text log "30/30" "validation" "layer 3" "imb"
expect_end 3 log "$ziggurat" top nowhere
expect_text log "run/<name>"

expect_end 0 log "$ziggurat" report one other --output report.html
expect_text log "report.html: 2 runs"
! grep -qE 'src=|href=|@import|fetch\(' report.html || fail "the report asks for other files"
expect_end 0 log "$ziggurat" report one --output alone.html
expect_end 3 log "$ziggurat" report nowhere --output none.html
[ ! -e none.html ] || fail "a report of nothing was written"

chromium=$(command -v chromium || command -v chromium-browser || true)
if [ -z "$chromium" ]; then
  echo "skipped: no chromium to look at the report (apt install chromium)"
  exit 0
fi
for page in report alone; do
  timeout 100 "$chromium" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$folder/browser" \
    --virtual-time-budget=4000 --dump-dom "file://$folder/$page.html" >"$page.dom" 2>"$page.err" ||
    { tail -5 "$page.err"; fail "chromium cannot open $page.html"; }
  grep -q 'data-drawn="yes"' "$page.dom" || fail "$page.html is not drawn to its end: $(grep -o 'data-first-error="[^"]*"' "$page.dom")"
  grep -q 'data-errors="0"' "$page.dom" || fail "$page.html has script errors: $(grep -o 'data-first-error="[^"]*"' "$page.dom")"
  [ "$(grep -o '<polyline' "$page.dom" | wc -l)" -ge 12 ] || fail "$page.html lacks curves"
done
[ "$(grep -o '<canvas' report.dom | wc -l)" = 4 ] || fail "expected a heat map for each layer with experts of both runs"
grep -q '<td>optimizer.lr</td>' report.dom || fail "the report does not compare configs"
grep -q 'the value of' report.dom || fail "the report shows no samples"
! grep -q '<script>alert' report.dom || fail "a prompt became a script"
echo "report: ok"
