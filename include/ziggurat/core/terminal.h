// What only a person at a terminal should see: colours, and one line that is drawn over and over. A file gets
// neither.
#pragma once

#include <string>
#include <string_view>

namespace ziggurat {

// Does a person see what is written there? Ranks of Open MPI write to a terminal each, whatever mpirun then
// does with it: for them it is mpirun's own output that counts.
bool is_terminal(int fd);

// Not where NO_COLOR is set to anything, or the terminal is dumb.
bool may_colour(int fd);

enum class Colour { red = 31, green = 32, yellow = 33 };
std::string coloured(std::string_view text, Colour colour, int fd);  // plain where fd may not be coloured

// --quiet: no progress, and of the log warnings only. Log files stay whole.
void set_quiet(bool quiet);
bool is_quiet();

// Is this the process of a job that speaks to the terminal (rank 0)?
bool speaks();

// One line at the bottom of stderr, replaced by the next one. What the log prints goes above it. Nothing
// unless stderr is a terminal.
void draw_status(const std::string& line);
void clear_status();

}  // namespace ziggurat
