#!/usr/bin/env bash
# Manual pages and completion say what --help says, of every command, and work in man, bash and zsh.
#   usage: pages.sh ZIGGURAT
# man and zsh are only tried where they are installed; bash is this.
set -uo pipefail  # so grep -q reads texts, not pipes: who writes into one that it has left ends with an error
ziggurat=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
problems=0
problem() { echo "FAILED: $*" >&2; problems=$((problems + 1)); }

"$ziggurat" pages --output "$folder" || exit 1
[ "$("$ziggurat" --help | grep -c pages)" = 0 ] || problem "'pages' is not hidden from --help"
source "$folder/bash-completion/completions/ziggurat"
grep -q -- '-F _ziggurat ziggurat' <<<"$(complete -p ziggurat)" || problem "complete -p: $(complete -p ziggurat)"

# offered WORD...: what bash offers in place of the last word of a line.
offered() {
  COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=0 COMPREPLY=()
  COMP_POINT=${#COMP_LINE}
  _ziggurat
  [ ${#COMPREPLY[@]} = 0 ] || printf '%s\n' "${COMPREPLY[@]}"
}

# expect_offer 'WORDS' LINE...
expect_offer() {
  local expected=$1 got
  shift
  got=$(offered "$@" | sort | tr '\n' ' ')
  [ "${got% }" = "$expected" ] || problem "completing '$*': expected '$expected', got '${got% }'"
}

# What the --help of a command, read from standard input, lists: sub-commands, options, and arguments with a place of
# their own.
below() { awk '/^Subcommands:/ { on = 1; next } on && /^  [a-z]/ { print $1 }'; }
options() { grep -oE '^ +(-[a-zA-Z],)?--[a-z0-9-]+' | tr ', ' '\n\n' | grep . ; }
arguments() { awk '/^Positionals:/ { on = 1; next } /^[A-Z]/ { on = 0 } on && /^  [a-z]/ { print $1 }'; }

# The part of a page that is about a command, as plain text.
manual_of() {
  local first=${1%% *} page=$folder/man/man1/ziggurat${1:+-}${1%% *}.1
  [ -e "$page" ] || { problem "$page is missing"; return; }
  sed 's/\\fB//g; s/\\fI//g; s/\\fR//g; s/\\-/-/g' "$page" |
    if [ "$1" = "$first" ]; then cat; else
      awk -v title=".SS ziggurat $1" '$0 == title { on = 1; next } /^\.S[SH]/ { on = 0 } on'
    fi
}

commands=0 checked=0
check_command() {
  local command=$1 word text help
  help=$("$ziggurat" $command --help)
  commands=$((commands + 1))
  text=$(manual_of "$command")
  local -a names
  mapfile -t names < <(below <<<"$help")
  if [ ${#names[@]} -gt 0 ]; then
    expect_offer "$(printf '%s\n' "${names[@]}" | sort | tr '\n' ' ' | sed 's/ $//')" ziggurat $command ''
    for word in "${names[@]}"; do
      if [ -z "$command" ]; then
        grep -q "^ziggurat-$word(1)" <<<"$text" || problem "ziggurat.1 does not name $word"
      fi
      check_command "${command:+$command }$word"
    done
    [ -z "$command" ] || return  # its page is that of the commands below it
  fi
  for word in $(options <<<"$help"); do
    checked=$((checked + 1))
    grep -qE -- "^(-[a-zA-Z], )?$word( |,|$)" <<<"$text" || problem "the manual of '$command' lacks $word"
    grep -qx -- "$word" <<<"$(offered ziggurat $command "$word")" || problem "bash does not offer $word after '$command'"
    grep -qF -- "$word[" "$folder/zsh/site-functions/_ziggurat" || problem "zsh does not know $word"
  done
  for word in $(arguments <<<"$help"); do
    grep -qE "^$word( |$)" <<<"$text" || problem "the manual of '$command' lacks its argument $word"
  done
}
check_command ""
[ $commands -ge 25 ] && [ $checked -ge 120 ] || problem "only $commands commands and $checked options were found in --help"

expect_offer 'train-tokenizer' ziggurat data train
expect_offer '--document-per' ziggurat data tokenize --document-p
expect_offer 'file json line separator' ziggurat data tokenize --document-per ''
expect_offer 'json' ziggurat data tokenize --input a b --document-per j
expect_offer 'bf16 fp32' ziggurat export --dtype ''
expect_offer 'fp32' ziggurat export --dtype = f
expect_offer '' ziggurat plan --ranks ''
expect_offer '' ziggurat data tokenize --input ''
expect_offer '' ziggurat train ''
expect_offer 'optimizer.lr=' ziggurat train config.yaml optimizer.lr
expect_offer 'train.tokens=' ziggurat plan --ranks 4 config.yaml train.tok
expect_offer '' ziggurat data inspect optimizer.

# The roff: nothing that man, whatis or their kin stumble over.
pages=("$folder"/man/man1/*.1)
if command -v man >/dev/null; then
  for page in "${pages[@]}"; do
    warnings=$(LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 man --warnings=w -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null)
    [ -z "$warnings" ] || problem "$(basename "$page"): $warnings"
  done
  lexgrog "${pages[@]}" >"$folder/names" || problem "whatis cannot read: $(grep failed "$folder/names")"
  grep -q -- "--lone-surrogates replace|refuse" <<<"$(LC_ALL=C.UTF-8 MANWIDTH=200 man -P cat -l "$folder/man/man1/ziggurat-data.1")" ||
    problem "man does not print ziggurat-data.1 as it is meant"
else
  echo "man is not installed: the pages were compared, not printed"
fi

if command -v zsh >/dev/null; then
  zsh -n "$folder/zsh/site-functions/_ziggurat" || problem "zsh cannot read its completion"
  # zsh_line TEXT: what becomes of it when a user presses Tab behind it.
  zsh_line() {
    FOLDER=$folder TEXT=$1 zsh -f <<'ZSH'
zmodload zsh/zpty
zpty shell 'TERM=dumb zsh -f -i'
zpty -w shell "PS1=; unsetopt zle_bracketed_paste 2>/dev/null; fpath=($FOLDER/zsh/site-functions \$fpath); autoload -Uz compinit; compinit -u -D; show() { print -r -- \"<\$BUFFER>\"; zle kill-whole-line }; zle -N show; bindkey '^X' show; print rea''dy"
zpty -r shell output '*ready*'
zpty -n -w shell "$TEXT"$'\t\x18'
zpty -r shell output '*<*>*'
print -r -- "${${output##*<}%%>*}"
ZSH
  }
  expect_line() { local got; got=$(zsh_line "$1"); [ "$got" = "$2" ] || problem "zsh makes '$got' of '$1', expected '$2'"; }
  expect_line 'ziggurat data tok' 'ziggurat data tokenize '
  expect_line 'ziggurat data tokenize --document-p' 'ziggurat data tokenize --document-per '
  expect_line 'ziggurat data tokenize --document-per sep' 'ziggurat data tokenize --document-per separator '
  expect_line 'ziggurat train a.yaml optimizer.lr' 'ziggurat train a.yaml optimizer.lr='
else
  echo "zsh is not installed: its completion was compared, not tried"
fi

echo "$commands commands, $checked options, $problems problems"
[ $problems = 0 ]
