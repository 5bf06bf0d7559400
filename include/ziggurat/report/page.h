// Runs as one page of HTML that needs nothing else: no network, no other files.
#pragma once

#include <span>
#include <string>

#include <ziggurat/report/history.h>

namespace ziggurat::report {

std::string html_page(std::span<const RunHistory> runs);

// What the page draws.
nlohmann::ordered_json page_data(std::span<const RunHistory> runs);

}  // namespace ziggurat::report
