# cmake --install: the binary, the configs, README, manual pages and completion. cpack (target `package`): the same as a
# Debian package, whose dependencies are those that the binary is linked with.
include(GNUInstallDirs)
set(ZIGGURAT_ZSH_DIR ${CMAKE_INSTALL_DATADIR}/zsh/site-functions CACHE STRING "Where zsh looks for completion")

install(TARGETS ziggurat RUNTIME)
install(DIRECTORY configs DESTINATION ${CMAKE_INSTALL_DATADIR}/ziggurat)
install(FILES scripts/mpi_environment.sh DESTINATION ${CMAKE_INSTALL_DATADIR}/ziggurat)
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

# The binary writes them itself. One that was built for other CPUs than this machine's cannot.
set(ZIGGURAT_PAGES ${PROJECT_BINARY_DIR}/pages)
install(CODE "
  file(REMOVE_RECURSE ${ZIGGURAT_PAGES})
  execute_process(COMMAND $<TARGET_FILE:ziggurat> pages --output ${ZIGGURAT_PAGES} RESULT_VARIABLE code)
  if(NOT code EQUAL 0)
    message(WARNING \"without manual pages and completion, which the binary writes itself: it does not run here\")
    file(MAKE_DIRECTORY ${ZIGGURAT_PAGES}/man ${ZIGGURAT_PAGES}/bash-completion ${ZIGGURAT_PAGES}/zsh/site-functions)
  endif()")
install(DIRECTORY ${ZIGGURAT_PAGES}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR})
install(DIRECTORY ${ZIGGURAT_PAGES}/bash-completion DESTINATION ${CMAKE_INSTALL_DATADIR})
install(DIRECTORY ${ZIGGURAT_PAGES}/zsh/site-functions/ DESTINATION ${ZIGGURAT_ZSH_DIR})

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_CONTACT "The authors of Ziggurat <ziggurat@example.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "trains dense, MoE and PR-MoE GPT models from YAML files")
set(CPACK_PACKAGE_DESCRIPTION
"One native binary that trains GPT models with and without experts on token
shards, on one machine or by mpirun on many, and evaluates, exports and serves
them. Built for ${ZIGGURAT_MARCH_TEXT}; on a CPU that lacks what this needs it
says so and ends.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS openmpi-bin)  # mpirun, for more than one rank
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "bash-completion, man-db")
# A file name says for which CPU it is, unless that is the one that packages are made for (preset `package`).
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
if(NOT ZIGGURAT_MARCH STREQUAL "x86-64-v3")
  string(REGEX REPLACE "[^a-z0-9]+" "-" march ${ZIGGURAT_MARCH_TEXT})
  set(CPACK_DEBIAN_FILE_NAME ziggurat_${PROJECT_VERSION}-1_${march}.deb)
endif()
include(CPack)
