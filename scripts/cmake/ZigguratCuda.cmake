# Decides whether the CUDA kernels are built. ZIGGURAT_HAS_CUDA, which code reads as kHasCuda, stays 0: the rooms above
# the kernels do not know the device yet.
#   AUTO  the toolkit and a driver are both present
#   ON    the toolkit must be present; a driver is not needed to compile
#   OFF   never
set(ZIGGURAT_HAS_CUDA 0)
set(ZIGGURAT_CUDA_KERNELS OFF)
if(NOT ZIGGURAT_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "ZIGGURAT_CUDA must be AUTO, ON or OFF, got '${ZIGGURAT_CUDA}'")
endif()
if(NOT ZIGGURAT_CUDA STREQUAL "OFF")
  find_package(CUDAToolkit QUIET)
  find_library(ZIGGURAT_CUDA_DRIVER NAMES cuda libcuda.so.1 NO_CACHE)
  if(ZIGGURAT_CUDA STREQUAL "ON" AND NOT CUDAToolkit_FOUND)
    message(FATAL_ERROR "ZIGGURAT_CUDA=ON needs the CUDA toolkit: set CUDAToolkit_ROOT, or use -DZIGGURAT_CUDA=OFF")
  endif()
  if(ZIGGURAT_CUDA STREQUAL "ON" OR (CUDAToolkit_FOUND AND EXISTS /proc/driver/nvidia/version))
    set(ZIGGURAT_CUDA_KERNELS ON)
  endif()
endif()
message(STATUS "Ziggurat CUDA kernels: ${ZIGGURAT_CUDA_KERNELS} (ZIGGURAT_CUDA=${ZIGGURAT_CUDA})")

# ziggurat_cuda: the kernels, for A100, H100/H200 and B200. No kernel may spill registers: ptxas warns, and warnings are
# errors.
if(ZIGGURAT_CUDA_KERNELS)
  # CMake 3.25 does not know that this nvcc takes it.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 100-real)
  set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
  if(CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
  endif()
  enable_language(CUDA)
  file(GLOB ZIGGURAT_CUDA_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cu
    ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cpp)
  add_library(ziggurat_cuda STATIC ${ZIGGURAT_CUDA_SOURCES})
  target_include_directories(ziggurat_cuda PUBLIC include ${PROJECT_BINARY_DIR}/include PRIVATE .)
  target_link_libraries(ziggurat_cuda PUBLIC CUDA::cudart_static fmt::fmt)
  set_target_properties(ziggurat_cuda PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON)
  target_compile_options(ziggurat_cuda PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr -Xptxas=-warn-spills,-warn-lmem-usage>
    $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${ZIGGURAT_WERROR}>>:-Werror=all-warnings>)
endif()
