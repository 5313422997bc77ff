"""What build systems are told of a library."""

from __future__ import annotations


def cmake(prefix: str, as_text: bool) -> str:
    """For `find_package`; with weights as text these are compiled with the program."""
    here = "${CMAKE_CURRENT_LIST_DIR}"
    sources = f'\n    INTERFACE_SOURCES "{here}/{prefix}_weights.c"' if as_text else ""
    return f"""# find_package({prefix} REQUIRED PATHS <this folder>)
# target_link_libraries(program {prefix}::{prefix})
if(NOT TARGET {prefix}::{prefix})
  add_library({prefix}::{prefix} STATIC IMPORTED)
  set_target_properties({prefix}::{prefix} PROPERTIES
    IMPORTED_LOCATION "{here}/lib{prefix}.a"
    INTERFACE_INCLUDE_DIRECTORIES "{here}"{sources})
endif()
"""


def pkg_config(prefix: str, about: str) -> str:
    """For `pkg-config --cflags --libs` with this folder in PKG_CONFIG_PATH."""
    return f"""prefix=${{pcfiledir}}

Name: {prefix}
Description: {about}
Version: 1
Cflags: -I${{prefix}}
Libs: ${{prefix}}/lib{prefix}.a
"""
