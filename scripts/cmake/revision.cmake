# Writes OUTPUT, a source file with the revision of the checkout SOURCE_DIR, if that changed. Run at every build.
#   cmake -DSOURCE_DIR=... -DOUTPUT=... -P revision.cmake
set(REVISION "")
find_program(GIT git)
if(GIT AND EXISTS ${SOURCE_DIR}/.git)  # sources unpacked inside another project's checkout are not that project
  execute_process(COMMAND ${GIT} -C ${SOURCE_DIR} describe --always --dirty --abbrev=12 --exclude=*
    OUTPUT_VARIABLE REVISION OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
file(CONFIGURE OUTPUT ${OUTPUT} @ONLY CONTENT [[
#include "apps/version.h"

const char* const ziggurat::apps::kRevision = "@REVISION@";
]])
