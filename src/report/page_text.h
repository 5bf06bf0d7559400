#pragma once

namespace ziggurat::report {

// The page, with REPORT_DATA where the runs go (page.html).
extern const char* const kPage;

}  // namespace ziggurat::report
