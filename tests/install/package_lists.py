#!/usr/bin/env python3
"""Containers and the Spack recipe name the packages of scripts/install_packages.sh, no fewer and no other.

package_lists.py ROOT         compares them, exit 1 and one line per difference
package_lists.py --self-test ROOT   takes each package out of each list in turn, and checks that this is noticed
"""
import os
import re
import sys
import types

# What Spack calls the packages of Debian. Of two Debian packages that are one in Spack, both stand here.
IN_SPACK = {
    "g++": "cxx", "cmake": "cmake", "ninja-build": "ninja", "pkg-config": "pkgconfig", "python3": "python",
    "libopenmpi-dev": "mpi", "openmpi-bin": "mpi", "libhdf5-dev": "hdf5", "libyaml-cpp-dev": "yaml-cpp",
    "libcli11-dev": "cli11", "libdnnl-dev": "onednn", "libspdlog-dev": "spdlog", "libfmt-dev": "fmt",
    "nlohmann-json3-dev": "nlohmann-json", "libxxhash-dev": "xxhash", "zlib1g-dev": "zlib-api", "libzstd-dev": "zstd",
    "libutf8proc-dev": "utf8proc", "libsentencepiece-dev": "sentencepiece", "libcpp-httplib-dev": "cpp-httplib",
    "libgtest-dev": "googletest", "libgmock-dev": "googletest", "libbenchmark-dev": "benchmark", "libpcre2-dev": "pcre2",
}
SPACK_ALONE = {"c"}  # of CMake's FindMPI and FindHDF5; Debian's g++ brings it
# Beside them: what makes a Debian package, the revision for --version, and the CUDA toolkit.
CONTAINERS_ALONE = {
    "cpu": {"dpkg-dev", "file", "git"},
    "cuda": {"dpkg-dev", "file", "git", "cuda-nvcc-12-6", "cuda-cudart-dev-12-6", "libcublas-dev-12-6", "libnccl-dev"},
}


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


def installed_by_script(text):
    lines = re.search(r"^packages=\((.*?)^\)", text, re.DOTALL | re.MULTILINE)[1].splitlines()
    return {word for line in lines for word in line.split("#")[0].split()}


def installed_by_build_stage(text):
    """The longest list of an apt-get install; the others bring what fetches it, and the package itself."""
    joined = re.sub(r"\\\n", " ", text)
    lists = re.findall(r"apt-get install((?: +[^\s&;#]+)*)", joined)
    return max(({word for word in one.split() if not word.startswith("-")} for one in lists), key=len)


def asked_of_spack(text):
    """Runs the recipe with a Spack that only takes notes."""
    names = set()
    spack = types.ModuleType("spack.package")
    spack.CMakePackage = type("CMakePackage", (), {})
    spack.CudaPackage = type("CudaPackage", (), {})
    for word in ("version", "variant", "conflicts", "generator"):
        setattr(spack, word, lambda *given, **named: None)
    spack.depends_on = lambda spec, **named: names.add(re.match(r"[a-z0-9+-]*[a-z0-9]", spec.split("+")[0].split("@")[0])[0])
    sys.modules["spack"] = types.ModuleType("spack")
    sys.modules["spack.package"] = spack
    exec(compile(text, "package.py", "exec"), {})
    return names


def differences(script, containers, spack):
    wanted = installed_by_script(script)
    problems = [f"{package}: what is it in Spack? Add it to IN_SPACK" for package in sorted(wanted - IN_SPACK.keys())]
    problems += [f"{package}: install_packages.sh no longer asks for it; take it out of IN_SPACK"
                 for package in sorted(IN_SPACK.keys() - wanted)]
    for name, text in containers.items():
        has = installed_by_build_stage(text)
        also = CONTAINERS_ALONE[os.path.splitext(name)[0]]
        problems += [f"scripts/container/{name}: lacks {package}" for package in sorted((wanted | also) - has)]
        problems += [f"scripts/container/{name}: {package} is more than install_packages.sh asks for"
                     for package in sorted(has - wanted - also)]
    expected = {IN_SPACK[package] for package in wanted & IN_SPACK.keys()} | SPACK_ALONE
    has = asked_of_spack(spack)
    problems += [f"the Spack recipe: lacks {package}" for package in sorted(expected - has)]
    problems += [f"the Spack recipe: {package} stands for nothing in install_packages.sh" for package in sorted(has - expected)]
    return problems


def self_test(script, containers, spack):
    """Every package that is taken out anywhere is missed."""
    def without(text, word):
        return re.sub(rf"(?<![\w+-]){re.escape(word)}(?![\w+-])", "", text)

    for package in installed_by_script(script):
        assert differences(without(script, package), containers, spack), f"{package} gone from install_packages.sh"
        for name in containers:
            fewer = {**containers, name: without(containers[name], package)}
            assert differences(script, fewer, spack), f"{package} gone from {name}"
    for package in set(IN_SPACK.values()) | SPACK_ALONE:
        fewer = re.sub(rf'^ *depends_on\("{re.escape(package)}["@+~].*\n', "", spack, flags=re.MULTILINE)
        assert fewer != spack and differences(script, containers, fewer), f"{package} gone from the Spack recipe"
    assert differences(script, containers, spack.replace("    generator", '    depends_on("boost")\n    generator'))
    print("every package that was taken out was missed")


def main():
    root = sys.argv[-1]
    script = read(root, "scripts/install_packages.sh")
    folder = "scripts/container"
    names = sorted(os.listdir(os.path.join(root, folder)))
    assert names == ["cpu.def", "cpu.dockerfile", "cuda.def", "cuda.dockerfile"], names
    containers = {name: read(root, f"{folder}/{name}") for name in names}
    spack = read(root, "scripts/spack/packages/ziggurat/package.py")
    problems = differences(script, containers, spack)
    print("\n".join(problems) or f"{len(containers)} containers and the Spack recipe ask for the same packages")
    if problems:
        return 1
    if "--self-test" in sys.argv:
        self_test(script, containers, spack)
    return 0


if __name__ == "__main__":
    sys.exit(main())
