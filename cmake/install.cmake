# SPDX-License-Identifier: MIT
#
# What is installed: headers, the libraries, ploop.pc and ploop-bundle.pc, the CMake package, documents and examples. The tools' own
# CMakeLists.txt installs them and their manual pages.

include(CMakePackageConfigHelpers)

set(libraries ploop_static)
if(PLOOP_SHARED)
    list(APPEND libraries ploop)
endif()
# What belongs to the library of bundles, where that was built.
if(LIBXML2_FOUND)
    list(APPEND libraries ploop_bundle_static)
    if(PLOOP_SHARED)
        list(APPEND libraries ploop_bundle)
    endif()
else()
    set(no_bundle PATTERN bundle.h EXCLUDE)
endif()
install(DIRECTORY include/ploop DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h" ${no_bundle})
install(TARGETS ${libraries} EXPORT ploopTargets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})

# What pkg-config says depends on the prefix, which `cmake --install --prefix` may change: written when installing.
set(private "-pthread")
if(URING_FOUND)
    string(APPEND private " -luring")
endif()
if(PLOOP_SHARED)
    set(libs_private ${private})
    set(bundle_private -lxml2)
else()
    set(libs_public " ${private}")
    set(bundle_public " -lxml2")
endif()
foreach(variable PROJECT_NAME PROJECT_VERSION PROJECT_DESCRIPTION PROJECT_SOURCE_DIR CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR
        libs_private libs_public bundle_private bundle_public)
    install(CODE "set(${variable} \"${${variable}}\")")
endforeach()
install(CODE "set(names ploop)")
if(LIBXML2_FOUND)
    install(CODE "list(APPEND names ploop-bundle)")
endif()
install(SCRIPT cmake/pkgconfig.cmake)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/ploop)
install(EXPORT ploopTargets NAMESPACE ploop:: DESTINATION ${package})
configure_package_config_file(cmake/ploopConfig.cmake.in ploopConfig.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/ploopConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/ploopConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/ploopConfigVersion.cmake
    DESTINATION ${package})

# As they lie in the source tree, so that their links lead somewhere.
install(FILES README.md CHANGELOG.md LICENSE HACKING.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md" PATTERN "*.svg" PATTERN man EXCLUDE PATTERN mainpage.md EXCLUDE)
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.c")
install(DIRECTORY python DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.py" PATTERN "*.md" PATTERN "*.toml")
