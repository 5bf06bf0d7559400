#!/usr/bin/env bash
# Makes about 11 MB of plain English text out of packages that Debian's `main` archive offers.
#
#   scripts/make_corpus.sh FOLDER      -> FOLDER/text/<source>/<name>.txt, one document per file
#
# Nothing is installed: the packages (9 MB) are downloaded with `apt-get download` and unpacked into the folder.
# Text that is already there is reused. The result is the same bytes on every run with the same packages.
#
#   r-cran-janeaustenr   the six novels of Jane Austen (public domain), 4.0 MB: prose of one style
#   sword-text-web       the World English Bible (public domain), 5.0 MB: plain modern English
#   jargon-text          the Jargon File (public domain), 1.6 MB: essays and a dictionary
#   debian-reference-en, developers-reference   how Debian works (GPL-2+), 0.5 MB: technical prose
set -euo pipefail

PACKAGES=(r-cran-janeaustenr sword-text-web jargon-text debian-reference-en developers-reference)
here=$(cd "$(dirname "$0")" && pwd)

if [ $# -ne 1 ]; then
  echo "usage: $0 FOLDER" >&2
  exit 2
fi
mkdir -p "$1"
folder=$(cd "$1" && pwd)

if [ -e "$folder/complete" ]; then
  echo "corpus: reusing $folder/text ($(cat "$folder/complete"))"
  exit 0
fi

if [ -e "$folder/complete.tmp" ] && [ -e "$folder/text" ] && [ ! -e "$folder/text.tmp" ]; then
  mv "$folder/complete.tmp" "$folder/complete"  # killed right before this
  exit 0
fi
if [ -e "$folder/text" ]; then
  echo "corpus: $folder/text is not of this script's making, and is left alone; create $folder/complete to use it," >&2
  echo "corpus: or remove it to have a corpus made" >&2
  exit 1
fi

packages="$folder/packages"
mkdir -p "$packages"
for package in "${PACKAGES[@]}"; do
  if ! compgen -G "$packages/${package}_*.deb" >/dev/null; then
    echo "corpus: downloading $package"
    # As root, apt warns that its sandbox user cannot write here; it then downloads all the same.
    (cd "$packages" && apt-get -qq download "$package" 2>"$packages/log") || {
      cat "$packages/log" >&2
      echo "corpus: cannot download $package; is the network there, and was 'apt-get update' run?" >&2
      echo "corpus: or put text files of your own below $folder/text and create $folder/complete" >&2
      exit 1
    }
  fi
  dpkg-deb -x "$packages/${package}"_*.deb "$packages/$package"
done

rm -rf "$folder/text.tmp" "$folder/complete.tmp"
python3 "$here/clean_corpus.py" "$packages" "$folder/text.tmp"
mv "$folder/text.tmp/complete" "$folder/complete.tmp"
mv "$folder/text.tmp" "$folder/text"
mv "$folder/complete.tmp" "$folder/complete"  # last: where it stands, the text is whole
echo "corpus: $folder/text ($(cat "$folder/complete"))"
