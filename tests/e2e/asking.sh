#!/usr/bin/env bash
# What the program says when it is asked, and how it tells how far it is.
source "$(dirname "$0")/common.sh"
tiny=$source_dir/configs/tiny/pr_moe.yaml

expect_end 0 log "$ziggurat" config help optimizer.lr
expect_text log "peak learning rate" "range     above 0" "default   0.0003" "used by   optim/rules.h" "paper"
expect_end 0 log "$ziggurat" config help model.blocks.3.pattern.0.experts
expect_text log "model.blocks.N.pattern.N.experts"
expect_end 2 log "$ziggurat" config help lernin_rate
expect_text log "did you mean 'optimizer.lr'?"
expect_end 2 log "$ziggurat" plan "$tiny" lernin_rate=1e-4
expect_text log "did you mean 'optimizer.lr'?"
expect_end 2 log "$ziggurat" plan "$tiny" n_layers=3
expect_text log "did you mean 'model.blocks'?"
expect_end 2 log "$ziggurat" plan "$tiny" device=gpu
expect_text log "expected one of cpu, cuda, got 'gpu'"
! grep -q "did you mean" log || { cat log; fail "gpu is taken for cpu"; }

expect_end 0 log "$ziggurat" config explain "$tiny" optimizer.lr=1e-3 --ranks 4
expect_text log "override 'optimizer.lr=1e-3', instead of" "base/tiny.yaml:" "default" "of 8 experts (1 layer), one" \
  "a rank sends in a step" "all_to_all" "98"
expect_end 2 log "$ziggurat" config explain "$tiny" --ranks 3
"$ziggurat" config schema | cmp - "$source_dir/configs/schema.json" || fail "configs/schema.json is not what config schema prints"
expect_end 0 log "$ziggurat" config help --cluster inside.bandwidth
expect_text log "bytes/s of one rank"
expect_end 2 log "$ziggurat" config help --cluster optimizer.lr

# In a file progress is whole lines, without colours; on a terminal one line, in colours unless NO_COLOR; --quiet: neither.
cp -r "$source_dir/src/config" text
tokenizer() { "$ziggurat" data train-tokenizer --input text --vocab-size 300 --overwrite --output tokenizer "$@"; }
expect_end 0 log tokenizer
expect_text log "count pieces 100% |" "learn merges 100% | 43 merges of 43 merges" "took"
! grep -qP '\033|\r' log || fail "a file got a terminal's codes"
expect_end 0 log tokenizer --quiet
[ ! -s log ] || { cat log; fail "--quiet is not quiet"; }
expect_end 0 log "$ziggurat" --quiet train "$tiny" train.tokens=2048 optimizer.warmup_tokens=0 optimizer.decay_tokens=2048 eval.every=0 output=quiet
[ ! -s log ] || { cat log; fail "--quiet train is not quiet"; }
grep -q "step 1/1" quiet/rank_0.log || fail "--quiet emptied the log file"

# Other long jobs: every one of them tells how far it is and how long it took.
expect_end 0 log "$ziggurat" data tokenize --input text --tokenizer tokenizer --output data --split 0.9,0.1,0
expect_end 0 log "$ziggurat" data stats data
expect_end 0 log "$ziggurat" data convert data/*-train.json --to megatron --output megatron/m
expect_text log "convert 100% |"
short=(train.tokens=4096 optimizer.warmup_tokens=0 optimizer.decay_tokens=4096 eval.every=0)
expect_end 0 log "$ziggurat" verify "$tiny" "${short[@]}" --steps 2 --against threads=2
expect_text log "verify 100% | 4 steps of 4 steps" "2 steps agree"
expect_end 0 log "$ziggurat" train "$tiny" "${short[@]}" output=run checkpoint.every=1
expect_end 0 log "$ziggurat" replay --checkpoint run/checkpoints/step_00000001 --step 2
expect_text log "replay 100% | 1 steps of 1 steps"
expect_end 0 log "$ziggurat" analyse routing --checkpoint run --data synthetic --sequences 8 --output routing
expect_text log "analyse 100% | 8 sequences of 8 sequences"
expect_end 0 log "$ziggurat" plan "$source_dir/configs/tiny/pr_moe.yaml" --simulate "$source_dir/configs/clusters/a100_128.yaml" --search --ranks 4 precision=bf16
expect_text log "search 100% |" "layouts fit its memory"

# Ranks of mpirun write to a terminal each, whatever becomes of what they write.
TERM=xterm expect_end 0 log mpirun -n 2 "$ziggurat" train "$tiny" "${short[@]}" output=ranks parallel.all_to_all=hierarchical
expect_text log "warning parallel.all_to_all = hierarchical: has no effect"
! grep -qP '\033' log || { cat -v log; fail "mpirun's output in a file has colours"; }

# on_terminal VARIABLE=VALUE...: what an error looks like there.
on_terminal() {
  python3 - "$ziggurat" "$@" <<'PYTHON'
import os, pty, sys
os.environ["TERM"] = "xterm"
os.environ.pop("NO_COLOR", None)
os.environ.update(word.split("=", 1) for word in sys.argv[2:])
seen = b""
def read(fd):
    global seen
    data = os.read(fd, 4096)
    seen += data
    return b""
pty.spawn([sys.argv[1], "plan", "nowhere.yaml"], read)
sys.stdout.buffer.write(seen)
PYTHON
}
on_terminal >log
grep -qP '\033\[31mziggurat: config error:\033\[0m' log || { cat -v log; fail "an error on a terminal is not red"; }
on_terminal NO_COLOR=1 >log
! grep -qP '\033' log || { cat -v log; fail "NO_COLOR is not heeded"; }
expect_text log "config error:"
echo "asking: ok"
