# For scripts that source it: headers out of a wheel on PyPI, known by its hash; nothing else of the wheel is kept.
# Needs python3 with pip.

# wheel_headers PACKAGE VERSION SHA256 PREFIX FOLDER [PIP OPTION...]: the wheel's files under PREFIX become those of
# FOLDER/include, which is made anew.
wheel_headers() {
  local package=$1 version=$2 hash=$3 prefix=$4 folder=$5 wheel
  shift 5
  wheel=$(mktemp -d)
  trap "rm -rf '$wheel'" EXIT
  echo "$package==$version --hash=sha256:$hash" >"$wheel/requirements.txt"
  python3 -m pip download -q --no-deps --require-hashes --only-binary=:all: "$@" -d "$wheel" -r "$wheel/requirements.txt"
  rm -rf "$folder"
  python3 - "$wheel"/*.whl "$prefix" "$folder/include" <<'END'
import os, sys, zipfile
wheel_file, prefix, folder = sys.argv[1:]
with zipfile.ZipFile(wheel_file) as wheel:
    for name in wheel.namelist():
        if name.startswith(prefix) and not name.endswith("/"):
            path = os.path.join(folder, name[len(prefix):])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(wheel.read(name))
END
  echo "$package $version: $folder/include"
}
