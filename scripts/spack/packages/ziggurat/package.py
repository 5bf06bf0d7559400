"""Ziggurat for Spack, built from a checkout:

    spack repo add scripts/spack
    spack dev-build ziggurat@0.1.0 +tests

The dependencies are those of scripts/install_packages.sh (a test compares them).
"""
import re

from spack.package import *


class Ziggurat(CMakePackage, CudaPackage):
    """Trains dense, MoE and PR-MoE GPT models from YAML files, and evaluates, exports and serves them."""

    version("0.1.0")

    variant("tests", default=False, description="Build the tests")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("ninja", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("python@3.9:", type=("build", "test"))

    depends_on("mpi")
    depends_on("hdf5@1.10:1.14~mpi")
    depends_on("yaml-cpp")
    depends_on("cli11@2.1:")
    depends_on("onednn@2.6:2")
    depends_on("spdlog+shared")
    depends_on("fmt@9")
    depends_on("nlohmann-json")
    depends_on("xxhash")
    depends_on("zlib-api")
    depends_on("zstd")
    depends_on("utf8proc")
    depends_on("sentencepiece")
    depends_on("cpp-httplib")
    depends_on("benchmark")

    depends_on("googletest+gmock", when="+tests")
    depends_on("pcre2", when="+tests")
    depends_on("boost+context", when="+tests")

    generator("ninja")
    conflicts("%gcc@:11")

    def cmake_args(self):
        return [
            self.define("ZIGGURAT_CUDA", "ON" if self.spec.satisfies("+cuda") else "OFF"),
            self.define_from_variant("ZIGGURAT_TESTS", "tests"),
            self.define("ZIGGURAT_MARCH", self.march()),
        ]

    def march(self):
        """Spack's target in the compiler's words: zen3 is znver3."""
        compiler = self.spec.compiler
        flags = self.spec.target.optimization_flags(compiler.name, str(compiler.version))
        found = re.search(r"-march=(\S+)", flags)
        return found[1] if found else "native"
