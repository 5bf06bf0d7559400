#!/usr/bin/env bash
# doctor looks at this machine: a folder that cannot be written is found, under mpirun on every rank.
source "$(dirname "$0")/common.sh"

expect_end 0 log "$ziggurat" doctor
expect_text log "CPU" "cores" "huge pages" "memory" "shared memory" "MPI" "one rank" ".: rename, fsync" "GiB free"
[ -z "$(find . -name 'ziggurat-doctor*')" ] || fail "doctor left a file behind"

expect_end 1 log "$ziggurat" doctor --folder nowhere
expect_text log "BAD" "nowhere: no file can be made: No such file or directory" "-> " "1 of the above must be changed"

expect_end 0 log mpirun -n 2 "$ziggurat" doctor
expect_text log "2 ranks on one node" "GB/s"
[ "$(grep -c '^ok *CPU\|^slow *CPU' log)" = 1 ] || fail "every rank printed the whole table"

expect_end 1 log timeout 60 mpirun -n 2 "$ziggurat" doctor --folder nowhere
expect_text log "BAD   folder" "rank 1 on" "2 of the above must be changed"

# A limit is found before a run meets it.
(ulimit -n 200; expect_end 0 log "$ziggurat" doctor)
expect_text log "slow  files" "200 open at once" "ulimit -n"
