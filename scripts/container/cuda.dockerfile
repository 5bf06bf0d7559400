# Ziggurat on Debian 12, with the CUDA toolkit. From the top of the repository:
#   docker build -f scripts/container/cuda.dockerfile -t ziggurat:cuda .
#   docker run --rm --gpus all -v "$PWD:/work" ziggurat:cuda mpirun -n 2 ziggurat train configs/quickstart/pr_moe.yaml
# The packages are those of scripts/install_packages.sh (a test compares them).
FROM debian:12 AS cuda
# NVIDIA's own archive for Debian 12; its keyring package names the key.
ADD https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/cuda-keyring_1.1-1_all.deb /tmp/keyring.deb
RUN apt-get update -q && apt-get install -y -q --no-install-recommends ca-certificates /tmp/keyring.deb

FROM cuda AS build
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
      g++ cmake ninja-build pkg-config \
      libopenmpi-dev openmpi-bin \
      libhdf5-dev \
      libyaml-cpp-dev libcli11-dev \
      libdnnl-dev \
      libspdlog-dev libfmt-dev \
      nlohmann-json3-dev libxxhash-dev \
      zlib1g-dev libzstd-dev \
      libutf8proc-dev libsentencepiece-dev \
      libcpp-httplib-dev \
      libgtest-dev libgmock-dev \
      libbenchmark-dev \
      libpcre2-dev \
      python3 \
      dpkg-dev file git \
      cuda-nvcc-12-6 cuda-cudart-dev-12-6 libcublas-dev-12-6 libnccl-dev && \
    rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY .git .git
COPY CMakeLists.txt CMakePresets.json README.md .gitignore .clang-format ./
COPY .ci .ci
COPY configs configs
COPY data_tools data_tools
COPY include include
COPY kernels kernels
COPY scripts scripts
COPY src src
COPY tests tests
RUN cmake --preset package -B /build -DZIGGURAT_CUDA=ON -DCUDAToolkit_ROOT=/usr/local/cuda-12.6 && \
    cmake --build /build --target package

FROM cuda
COPY --from=build /build/ziggurat_*.deb /tmp/
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
      /tmp/ziggurat_*.deb openmpi-bin && \
    rm -rf /var/lib/apt/lists/* /tmp/ziggurat_*.deb
# As scripts/mpi_environment.sh. Copies between two processes need a right that containers do not give.
ENV OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_hwloc_base_binding_policy=none \
    OMPI_MCA_btl_vader_single_copy_mechanism=none OMP_WAIT_POLICY=passive
WORKDIR /work
CMD ["ziggurat", "--help"]
