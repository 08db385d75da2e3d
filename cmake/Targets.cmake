# The verbs that every folder's CMakeLists.txt is written in.
#
#   lockstep_library(NAME SOURCES a.cc … [SHARED] [TORCH] [DEPS target …])   a static library lockstep_NAME, alias lockstep::NAME
#   lockstep_program(NAME SOURCES main.cc … [TORCH] [DEPS target …])  a program in build/…/bin
#   lockstep_test(NAME SOURCES a_test.cc … [TORCH] [DEPS target …] [LABELS …] [TIMEOUT s])
#   lockstep_python_test(NAME SCRIPT a_test.py [ARGS …] [LABELS …] [TIMEOUT s])  run with LOCKSTEP_PYTHON; in its environment
#     LOCKSTEP_SOURCE (the tree) and LOCKSTEP_BIN (the programs); PYTHONPATH is the tree, so `from tests.x import y` works
#
# TORCH says that the target's sources include libtorch: it is left out where LOCKSTEP_TORCH is off, and its sources share
# one precompiled header.

if(LOCKSTEP_TORCH)
  file(WRITE ${CMAKE_BINARY_DIR}/torch_pch.cc "")
  add_library(lockstep_torch_pch OBJECT ${CMAKE_BINARY_DIR}/torch_pch.cc)
  target_link_libraries(lockstep_torch_pch PRIVATE lockstep_warnings Torch::cpu)
  target_include_directories(lockstep_torch_pch PRIVATE ${CMAKE_SOURCE_DIR})
  target_precompile_headers(lockstep_torch_pch PRIVATE <ATen/ATen.h> <torch/csrc/autograd/custom_function.h>
                                                       <torch/csrc/autograd/autograd.h>)
endif()

function(_lockstep_target name kind)
  cmake_parse_arguments(PARSE_ARGV 2 arg "SHARED;TORCH" "TIMEOUT" "SOURCES;DEPS;LABELS")
  target_sources(${name} PRIVATE ${arg_SOURCES})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  if(LOCKSTEP_SANITIZE MATCHES thread AND NOT kind STREQUAL library)
    target_link_libraries(${name} PRIVATE "$<LINK_LIBRARY:WHOLE_ARCHIVE,lockstep_tsan_mutex>")
  endif()
  target_link_libraries(${name} PRIVATE lockstep_warnings)
  if(arg_TORCH)
    target_precompile_headers(${name} REUSE_FROM lockstep_torch_pch)
    target_link_libraries(${name} PUBLIC Torch::cpu)
  endif()
  target_link_libraries(${name} PUBLIC ${arg_DEPS} Threads::Threads)
endfunction()

function(lockstep_library name)
  if("TORCH" IN_LIST ARGN AND NOT LOCKSTEP_TORCH)
    return()
  endif()
  set(kind STATIC)
  if("SHARED" IN_LIST ARGN)
    set(kind SHARED)
  endif()
  add_library(lockstep_${name} ${kind})
  add_library(lockstep::${name} ALIAS lockstep_${name})
  _lockstep_target(lockstep_${name} library ${ARGN})
endfunction()

function(lockstep_program name)
  if("TORCH" IN_LIST ARGN AND NOT LOCKSTEP_TORCH)
    return()
  endif()
  add_executable(${name})
  _lockstep_target(${name} program ${ARGN})
endfunction()

function(lockstep_test name)
  if("TORCH" IN_LIST ARGN AND NOT LOCKSTEP_TORCH)
    return()
  endif()
  cmake_parse_arguments(PARSE_ARGV 1 arg "TORCH" "TIMEOUT" "SOURCES;DEPS;LABELS")
  add_executable(${name})
  _lockstep_target(${name} test ${ARGN})
  target_link_libraries(${name} PRIVATE GTest::gmock GTest::gtest_main)
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}")
endfunction()

function(lockstep_python_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "SCRIPT;TIMEOUT" "ARGS;LABELS")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  add_test(NAME ${name} COMMAND ${LOCKSTEP_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/${arg_SCRIPT} ${arg_ARGS})
  set_tests_properties(${name} PROPERTIES
    TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}"
    ENVIRONMENT "LOCKSTEP_SOURCE=${CMAKE_SOURCE_DIR};LOCKSTEP_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY};PYTHONPATH=${CMAKE_SOURCE_DIR};PYTHONDONTWRITEBYTECODE=1")
endfunction()
