# libtorch from the PyPI wheel, as the target Torch::cpu.
#
# The wheel's own TorchConfig.cmake asks for a CUDA toolkit; torch_cpu and c10 do not need one, so they are imported here
# by hand. Its include folder also holds an old google/protobuf: no translation unit may include torch and a generated proto
# header, which tests/include_rules checks.
file(GLOB torch_dirs ${LOCKSTEP_VENV}/lib/python3*/site-packages/torch)
if(NOT torch_dirs)
  message(FATAL_ERROR "No torch wheel in ${LOCKSTEP_VENV}. Run `make setup` first, or name the virtual environment with -DLOCKSTEP_VENV=DIR.")
endif()
list(GET torch_dirs 0 TORCH_DIR)

foreach(name c10 torch_cpu)
  add_library(Torch::${name} SHARED IMPORTED)
  set_target_properties(Torch::${name} PROPERTIES IMPORTED_LOCATION ${TORCH_DIR}/lib/lib${name}.so IMPORTED_NO_SONAME TRUE)
endforeach()
add_library(Torch::cpu INTERFACE IMPORTED)
target_include_directories(Torch::cpu SYSTEM INTERFACE ${TORCH_DIR}/include ${TORCH_DIR}/include/torch/csrc/api/include)
target_link_libraries(Torch::cpu INTERFACE Torch::torch_cpu Torch::c10)
# The OpenMP runtime that it was built with and brings.
file(GLOB torch_openmp ${TORCH_DIR}/lib/libgomp*.so*)
list(GET torch_openmp 0 torch_openmp)
add_library(Torch::openmp SHARED IMPORTED)
set_target_properties(Torch::openmp PROPERTIES IMPORTED_LOCATION ${torch_openmp} IMPORTED_NO_SONAME TRUE)
target_link_options(Torch::cpu INTERFACE -Wl,--disable-new-dtags -Wl,-rpath,${TORCH_DIR}/lib -Wl,--allow-shlib-undefined)
