// The keys that a config may have, whether or not anybody wrote them.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include <ziggurat/config/fields.h>

namespace ziggurat {

// Every key with its full path, structs before what is in them; an element of a list is called N.
using KeyVisitor = std::function<void(const std::string& key, const Field& field)>;
void for_each_key(const TypeInfo& type, void* value, const KeyVisitor& visit);

// The full path of the key that somebody meant who wrote `name` in the struct at `path` ("" = the whole
// config), "" if none is near. Compared are the names that other trainers have, ours, those in the same
// struct first, and the words of the help: lernin_rate is near to what optimizer.lr says of itself.
std::string nearest_key(const TypeInfo& root, std::string_view path, const std::string& name);

}  // namespace ziggurat
