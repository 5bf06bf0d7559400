# Decides whether the CUDA kernels are built, which code reads as kHasCuda.
#   AUTO  the toolkit and a driver are both present
#   ON    the toolkit must be present; a driver is not needed to compile
#   OFF   never
#   BESIDE  not in `ziggurat`, but the toolkit must be present: `ziggurat_with_cuda` shares all other objects with it, and
#           has kernels for one architecture. What scripts/test_cuda.sh checks in the folder of a CPU build.
set(ZIGGURAT_HAS_CUDA 0)
set(ZIGGURAT_CUDA_KERNELS OFF)
if(NOT ZIGGURAT_CUDA MATCHES "^(AUTO|ON|OFF|BESIDE)$")
  message(FATAL_ERROR "ZIGGURAT_CUDA must be AUTO, ON, OFF or BESIDE, got '${ZIGGURAT_CUDA}'")
endif()
if(NOT ZIGGURAT_CUDA STREQUAL "OFF")
  find_package(CUDAToolkit QUIET)
  find_library(ZIGGURAT_CUDA_DRIVER NAMES cuda libcuda.so.1 NO_CACHE)
  if(ZIGGURAT_CUDA MATCHES "^(ON|BESIDE)$" AND NOT CUDAToolkit_FOUND)
    message(FATAL_ERROR "ZIGGURAT_CUDA=${ZIGGURAT_CUDA} needs the CUDA toolkit: set CUDAToolkit_ROOT, or use -DZIGGURAT_CUDA=OFF")
  endif()
  if(ZIGGURAT_CUDA STREQUAL "ON" OR (CUDAToolkit_FOUND AND EXISTS /proc/driver/nvidia/version))
    set(ZIGGURAT_CUDA_KERNELS ON)
  endif()
endif()
message(STATUS "Ziggurat CUDA kernels: ${ZIGGURAT_CUDA_KERNELS} (ZIGGURAT_CUDA=${ZIGGURAT_CUDA})")

# ziggurat_cuda: the kernels, for A100, H100/H200 and B200. No kernel may spill registers: ptxas warns, and warnings are
# errors.
if(ZIGGURAT_CUDA_KERNELS OR ZIGGURAT_CUDA STREQUAL "BESIDE")
  set(beside "")
  if(ZIGGURAT_CUDA_KERNELS)
    set(ZIGGURAT_HAS_CUDA 1)
    list(APPEND ZIGGURAT_UNUSED_SOURCES cuda_absent gpus_absent)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 100-real CACHE STRING "The GPUs to build for: A100, H100/H200, B200")
  else()
    set(beside EXCLUDE_FROM_ALL)
    set(CMAKE_CUDA_ARCHITECTURES 80-real)  # the fastest to compile
  endif()
  # CMake 3.25 does not know that this nvcc takes it.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
  if(CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
  endif()
  enable_language(CUDA)
  file(GLOB ZIGGURAT_CUDA_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cu
    ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cpp ${PROJECT_SOURCE_DIR}/kernels/cuda/lib/*.cpp)
  # cuDNN's attention, where it and the headers of its frontend are.
  find_library(CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR})
  find_path(CUDNN_INCLUDE cudnn_graph.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_path(CUDNN_FRONTEND_INCLUDE cudnn_frontend.h HINTS ${PROJECT_SOURCE_DIR}/build/cudnn_frontend/include)
  if(CUDNN_LIBRARY AND CUDNN_INCLUDE AND CUDNN_FRONTEND_INCLUDE)
    list(FILTER ZIGGURAT_CUDA_SOURCES EXCLUDE REGEX "/no_attention\\.cpp$")
    message(STATUS "Ziggurat attention on GPUs: cuDNN and our own kernels")
  else()
    list(FILTER ZIGGURAT_CUDA_SOURCES EXCLUDE REGEX "/cudnn_attention\\.cpp$")
    message(STATUS "Ziggurat attention on GPUs: our own kernels (cuDNN's needs scripts/install_cudnn_frontend.sh)")
  endif()
  # CUTLASS's grouped products for Hopper, where its headers are.
  set(ZIGGURAT_CUDA_OBJECTS ziggurat_cuda)
  find_path(CUTLASS_INCLUDE cutlass/cutlass.h HINTS ${PROJECT_SOURCE_DIR}/build/cutlass/include)
  set(cutlass_text "")
  if(CUTLASS_INCLUDE AND CMAKE_CUDA_ARCHITECTURES MATCHES "90a")
    list(APPEND ZIGGURAT_CUDA_OBJECTS ziggurat_cutlass)
    list(FILTER ZIGGURAT_CUDA_SOURCES EXCLUDE REGEX "/no_grouped\\.cpp$")
    file(STRINGS ${CUTLASS_INCLUDE}/cutlass/version.h version REGEX "define CUTLASS_(MAJOR|MINOR) [0-9]+")
    string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*" ", CUTLASS \\1.\\2" cutlass_text "${version}")
    message(STATUS "Ziggurat grouped products on GPUs: our own kernels, on Hopper CUTLASS's")
  else()
    message(STATUS "Ziggurat grouped products on GPUs: our own kernels (CUTLASS's for sm_90a need scripts/install_cutlass.sh)")
  endif()
  # Collectives between GPUs.
  find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
  find_path(NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  if(NCCL_LIBRARY AND NCCL_INCLUDE)
    if(ZIGGURAT_CUDA_KERNELS)
      list(APPEND ZIGGURAT_UNUSED_SOURCES nccl_absent)
    endif()
    message(STATUS "Ziggurat collectives of GPUs: NCCL")
  else()
    list(FILTER ZIGGURAT_CUDA_SOURCES EXCLUDE REGEX "/nccl\\.cpp$")
    message(STATUS "Ziggurat collectives of GPUs: through the host (no NCCL: nccl.h and libnccl)")
  endif()
  # What the binary says of itself.
  list(TRANSFORM CMAKE_CUDA_ARCHITECTURES REPLACE "^([0-9]+a?).*" "sm_\\1" OUTPUT_VARIABLE architectures)
  list(JOIN architectures " " architectures)
  set(cudnn_text "")
  if(CUDNN_LIBRARY AND CUDNN_INCLUDE AND CUDNN_FRONTEND_INCLUDE)
    file(STRINGS ${CUDNN_INCLUDE}/cudnn_version.h version REGEX "define CUDNN_(MAJOR|MINOR) [0-9]+")
    string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*" ", cuDNN \\1.\\2" cudnn_text "${version}")
  endif()
  set_source_files_properties(${PROJECT_SOURCE_DIR}/kernels/cuda/lib/gpus.cpp PROPERTIES COMPILE_DEFINITIONS
    "ZIGGURAT_GPU_ARCHITECTURES=\"${architectures}\";ZIGGURAT_LIBRARIES_TEXT=\"${cudnn_text}${cutlass_text}\"")
  # Part of ziggurat_lib, whose errors kernels throw.
  add_library(ziggurat_cuda OBJECT ${beside} ${ZIGGURAT_CUDA_SOURCES})
  target_include_directories(ziggurat_cuda PUBLIC include ${PROJECT_BINARY_DIR}/include PRIVATE . kernels/cuda)
  target_link_libraries(ziggurat_cuda PUBLIC CUDA::cublasLt CUDA::cudart_static fmt::fmt PRIVATE ziggurat_options)
  if(NCCL_LIBRARY AND NCCL_INCLUDE)
    target_include_directories(ziggurat_cuda SYSTEM PRIVATE ${NCCL_INCLUDE})
    target_link_libraries(ziggurat_cuda PUBLIC ${NCCL_LIBRARY})
  endif()
  if(CUDNN_LIBRARY AND CUDNN_INCLUDE AND CUDNN_FRONTEND_INCLUDE)
    target_include_directories(ziggurat_cuda SYSTEM PRIVATE ${CUDNN_INCLUDE} ${CUDNN_FRONTEND_INCLUDE})
    # nvrtc by its file: CUDA::nvrtc brings the driver, without which the program would not even plan.
    target_link_libraries(ziggurat_cuda PUBLIC ${CUDNN_LIBRARY} $<TARGET_FILE:CUDA::nvrtc>)
    set_source_files_properties(${PROJECT_SOURCE_DIR}/kernels/cuda/lib/cudnn_attention.cpp PROPERTIES
      COMPILE_DEFINITIONS CUDNN_FRONTEND_SKIP_JSON_LIB COMPILE_OPTIONS -O0)  # -O3 takes minutes, and it plans once
  endif()
  set_target_properties(ziggurat_cuda PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON)
  target_compile_options(ziggurat_cuda PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr -Xptxas=-warn-spills,-warn-lmem-usage>
    $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${ZIGGURAT_WERROR}>>:-Werror=all-warnings>)

  # Hopper's alone: its instructions are no other GPU's.
  if("ziggurat_cutlass" IN_LIST ZIGGURAT_CUDA_OBJECTS)
    add_library(ziggurat_cutlass OBJECT ${beside} ${PROJECT_SOURCE_DIR}/kernels/cuda/lib/cutlass_grouped.cu)
    set_target_properties(ziggurat_cutlass PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON
      CUDA_ARCHITECTURES 90a-real)
    target_include_directories(ziggurat_cutlass PRIVATE include ${PROJECT_BINARY_DIR}/include . kernels/cuda)
    target_include_directories(ziggurat_cutlass SYSTEM PRIVATE ${CUTLASS_INCLUDE})
    target_compile_options(ziggurat_cutlass PRIVATE $<TARGET_PROPERTY:ziggurat_cuda,COMPILE_OPTIONS>)
  endif()

  # ziggurat_cuda_products: every kernel linked with CUDA's libraries, so that nothing is missing; on a machine with a
  # GPU it checks products. With the rooms below the kernels alone: the CPU's need not be built for it.
  if(ZIGGURAT_TESTS)
    file(GLOB ZIGGURAT_BELOW_KERNELS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/core/*.cpp
      ${PROJECT_SOURCE_DIR}/src/io/system_facts.cpp ${PROJECT_SOURCE_DIR}/src/memory/*.cpp
      ${PROJECT_SOURCE_DIR}/src/runtime/*.cpp)
    add_executable(ziggurat_cuda_products ${beside} tests/cuda/products.cpp ${ZIGGURAT_BELOW_KERNELS})
    target_include_directories(ziggurat_cuda_products PRIVATE . src)
    target_link_libraries(ziggurat_cuda_products PRIVATE ziggurat_options ${ZIGGURAT_CUDA_OBJECTS} OpenMP::OpenMP_CXX spdlog::spdlog)
  endif()
endif()
