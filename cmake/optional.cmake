# SPDX-License-Identifier: MIT
#
# ploop_optional(PREFIX MODULE HEADER CALL): look for a library with pkg-config, and see whether a program that makes that call can be
# compiled and linked: another machine's library (-m32, musl) is as good as none. Sets PREFIX_FOUND; the target is PkgConfig::PREFIX.

include(CheckCSourceCompiles)

macro(ploop_optional prefix module header call)
    set(${prefix}_FOUND FALSE)
    if(PkgConfig_FOUND)
        pkg_check_modules(${prefix} QUIET IMPORTED_TARGET ${module})
    endif()
    if(${prefix}_FOUND)
        set(CMAKE_REQUIRED_QUIET ON)
        set(CMAKE_REQUIRED_LIBRARIES PkgConfig::${prefix})
        check_c_source_compiles("#include <${header}>\nint main(void) { return ${call}; }" PLOOP_${prefix}_WORKS)
        unset(CMAKE_REQUIRED_LIBRARIES)
        unset(CMAKE_REQUIRED_QUIET)
        if(NOT PLOOP_${prefix}_WORKS)
            set(${prefix}_FOUND FALSE)
        endif()
    endif()
    if(${prefix}_FOUND)
        message(STATUS "${module}: ${${prefix}_VERSION}")
    else()
        message(STATUS "${module}: missing, or not for this compiler")
    endif()
endmacro()
