# SPDX-License-Identifier: MIT
#
# What is installed: headers, the libraries, ploop.pc and ploop-bundle.pc, the CMake package, documents. The tools' own CMakeLists.txt installs them.

include(CMakePackageConfigHelpers)

# What belongs to the library of bundles, where that was built.
if(LIBXML2_FOUND)
    set(bundle ploop_bundle)
else()
    set(no_bundle PATTERN bundle.h EXCLUDE)
endif()
install(DIRECTORY include/ploop DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h" ${no_bundle})
install(TARGETS ploop ploop_static ${bundle} EXPORT ploopTargets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})

set(pkgconfig ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH pc_to_prefix ${pkgconfig} ${CMAKE_INSTALL_PREFIX})
file(RELATIVE_PATH pc_to_include ${pkgconfig} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
configure_file(ploop.pc.in ploop.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/ploop.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
if(LIBXML2_FOUND)
    configure_file(ploop-bundle.pc.in ploop-bundle.pc @ONLY)
    install(FILES ${PROJECT_BINARY_DIR}/ploop-bundle.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/ploop)
install(EXPORT ploopTargets NAMESPACE ploop:: DESTINATION ${package})
configure_package_config_file(cmake/ploopConfig.cmake.in ploopConfig.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(ploopConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/ploopConfig.cmake ${PROJECT_BINARY_DIR}/ploopConfigVersion.cmake DESTINATION ${package})

file(GLOB documents CONFIGURE_DEPENDS README.md CHANGELOG.md LICENSE docs/*.md)
install(FILES ${documents} DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/images DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL FILES_MATCHING PATTERN "*.svg")
file(GLOB pages CONFIGURE_DEPENDS docs/man/*.[1-8])
foreach(page ${pages})
    string(REGEX MATCH "[1-8]$" section ${page})
    install(FILES ${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()
