# SPDX-License-Identifier: MIT
#
# ploop_archive(NAME OBJECTS OUTPUT_NAME): a static library NAME of one object, made of the object library OBJECTS, in which every
# hidden name has become local. The compiler's driver links that object, as it knows the machine (-m32, a cross compiler) and what to
# do with objects that are compiled at the end (-flto).

include(CheckLinkerFlag)
set(CMAKE_REQUIRED_QUIET ON)
# A group that several objects have (i386's __x86.get_pc_thunk) becomes an ordinary section, or its name could not be made local.
check_linker_flag(C -Wl,--force-group-allocation PLOOP_HAS_FORCE_GROUP_ALLOCATION)
unset(CMAKE_REQUIRED_QUIET)

function(ploop_archive name objects output_name)
    string(TOUPPER "${CMAKE_BUILD_TYPE}" type)
    separate_arguments(flags UNIX_COMMAND "${CMAKE_C_COMPILER_ARG1} ${CMAKE_C_FLAGS} ${CMAKE_C_FLAGS_${type}}")
    if(CMAKE_C_COMPILER_TARGET)
        list(APPEND flags ${CMAKE_C_COMPILE_OPTIONS_TARGET}${CMAKE_C_COMPILER_TARGET})
    endif()
    if(CMAKE_SYSROOT)
        list(APPEND flags --sysroot=${CMAKE_SYSROOT})
    endif()
    if(CMAKE_INTERPROCEDURAL_OPTIMIZATION)
        list(APPEND flags ${CMAKE_C_LINK_OPTIONS_IPO})
    endif()
    if(CMAKE_SHARED_LINKER_FLAGS MATCHES "-fuse-ld=[a-z]+")
        list(APPEND flags ${CMAKE_MATCH_0})
    endif()
    list(APPEND flags -nostdlib -r -Wl,--build-id=none)
    if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
        list(APPEND flags -flinker-output=nolto-rel) # machine code, no intermediate code
    endif()
    if(PLOOP_HAS_FORCE_GROUP_ALLOCATION)
        list(APPEND flags -Wl,--force-group-allocation)
    endif()
    set(object lib${output_name}.o)
    add_custom_command(OUTPUT ${object}
        COMMAND ${CMAKE_C_COMPILER} ${flags} -o ${object} $<TARGET_OBJECTS:${objects}>
        COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${object}
        DEPENDS ${objects} $<TARGET_OBJECTS:${objects}>
        COMMAND_EXPAND_LISTS VERBATIM)
    add_library(${name} STATIC ${CMAKE_CURRENT_BINARY_DIR}/${object})
    set_target_properties(${name} PROPERTIES OUTPUT_NAME ${output_name} LINKER_LANGUAGE C)
endfunction()
