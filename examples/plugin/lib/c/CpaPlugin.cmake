# cpa_plugin(NAME): builds plugin.c of the calling folder into NAME-c.so (.dylib, .dll), without the prefix "lib", so that
# the plugin's id is NAME-c. Set CMAKE_LIBRARY_OUTPUT_DIRECTORY to have it somewhere else than in the build folder.
set(CPA_PLUGIN_LIB_DIR "${CMAKE_CURRENT_LIST_DIR}")

function(cpa_plugin name)
  set(target "${name}-c")
  add_library("${target}" SHARED plugin.c)
  set_target_properties("${target}" PROPERTIES
    PREFIX ""
    C_STANDARD 11
    C_STANDARD_REQUIRED ON
    C_EXTENSIONS OFF
    C_VISIBILITY_PRESET hidden
    RUNTIME_OUTPUT_DIRECTORY "${CMAKE_LIBRARY_OUTPUT_DIRECTORY}")
  target_include_directories("${target}" PRIVATE
    "${CPA_PLUGIN_LIB_DIR}" "${CPA_PLUGIN_LIB_DIR}/../../../../cpa/abi")
endfunction()
