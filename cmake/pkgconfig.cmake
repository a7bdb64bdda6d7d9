# SPDX-License-Identifier: MIT
#
# Run by `cmake --install`: writes and installs ploop.pc and ploop-bundle.pc. In a system folder they name it plainly, so that
# pkg-config leaves it out of its flags; elsewhere they say where they lie themselves, so that the tree can be moved.

get_filename_component(prefix "${CMAKE_INSTALL_PREFIX}" ABSOLUTE)
get_filename_component(libdir "${CMAKE_INSTALL_LIBDIR}" ABSOLUTE BASE_DIR "${prefix}")
get_filename_component(includedir "${CMAKE_INSTALL_INCLUDEDIR}" ABSOLUTE BASE_DIR "${prefix}")
string(REPLACE "${prefix}/" "\${prefix}/" pc_libdir "${libdir}")
string(REPLACE "${prefix}/" "\${prefix}/" pc_includedir "${includedir}")
if(prefix MATCHES "^/usr(/local)?$")
    set(pc_prefix "${prefix}")
else()
    file(RELATIVE_PATH up "${libdir}/pkgconfig" "${prefix}")
    string(REGEX REPLACE "/$" "" pc_prefix "\${pcfiledir}/${up}")
endif()
foreach(name ${names})
    set(file "$ENV{DESTDIR}${libdir}/pkgconfig/${name}.pc")
    configure_file("${PROJECT_SOURCE_DIR}/cmake/${name}.pc.in" "${file}" @ONLY)
    message(STATUS "Installing: ${file}")
    list(APPEND CMAKE_INSTALL_MANIFEST_FILES "${libdir}/pkgconfig/${name}.pc")
endforeach()
