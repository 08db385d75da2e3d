# Compiler, linker and warning settings for every target of ours.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1 -DNDEBUG")

find_program(CCACHE ccache)
if(CCACHE)
  # gcc's precompiled headers need both words; base_dir lets clones and worktrees share hits.
  set(launcher ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
endif()

find_program(MOLD mold)
if(MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# Same bits: no compiler may contract a*b+c on its own, on any machine.
add_compile_options(-ffp-contract=off)
# One setting for libraries and programs, so that both can use one precompiled header.
add_compile_options(-fPIC)

if(LOCKSTEP_SANITIZE)
  add_compile_options(-fsanitize=${LOCKSTEP_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${LOCKSTEP_SANITIZE})
endif()

# What our own code is held to. Dependencies' headers come in as SYSTEM.
add_library(lockstep_warnings INTERFACE)
target_compile_options(lockstep_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
                                                   -Wimplicit-fallthrough -Wno-missing-field-initializers -Werror)
# gcc 12 sees overruns in libstdc++'s own string concatenation where there are none (GCC bug 105329 and its kin).
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  target_compile_options(lockstep_warnings INTERFACE -Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread -Wno-restrict)
endif()
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_compile_options(lockstep_warnings INTERFACE -Wthread-safety)
endif()
