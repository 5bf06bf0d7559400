// The owner of a lock as the lock file tells it.
#pragma once

#include <string>

#include <ziggurat/io/folder_lock.h>

namespace ziggurat {

LockOwner this_process();  // with a new id

std::string to_json(const LockOwner& owner);  // one line
// The other way. The line may be empty, cut off or anything else: what it does not tell stays empty.
LockOwner owner_from(const std::string& line);

}  // namespace ziggurat
