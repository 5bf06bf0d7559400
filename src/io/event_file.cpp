#include <bit>
#include <cstring>

#include <ziggurat/core/crc32c.h>
#include <ziggurat/io/event_file.h>

namespace ziggurat {

namespace {

// Protobuf's wire format: a key (field number and wire type), then a varint, eight or four bytes, or a length
// and so many bytes.
class Message {
 public:
  Message& varint(int field, uint64_t value) {
    append_varint(key(field, 0));
    append_varint(value);
    return *this;
  }
  Message& real64(int field, double value) { return fixed(field, 1, value); }
  Message& real32(int field, float value) { return fixed(field, 5, value); }
  Message& bytes(int field, std::string_view value) {
    append_varint(key(field, 2));
    append_varint(value.size());
    bytes_ += value;
    return *this;
  }
  Message& message(int field, const Message& value) { return bytes(field, value.bytes_); }

  const std::string& text() const { return bytes_; }

 private:
  static uint64_t key(int field, int wire_type) { return static_cast<uint64_t>(field << 3 | wire_type); }
  void append_varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }
  template <class T>
  Message& fixed(int field, int wire_type, T value) {
    append_varint(key(field, wire_type));
    bytes_.append(reinterpret_cast<const char*>(&value),
                  sizeof value);  // little endian, as every machine here
    return *this;
  }

  std::string bytes_;
};

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string record(const Message& event) {
  const std::string length = raw(static_cast<uint64_t>(event.text().size()));
  return length + raw(masked_crc32c(length)) + event.text() + raw(masked_crc32c(event.text()));
}

Message event_at(double time, int64_t step) {
  Message event;
  event.real64(1, time).varint(2, static_cast<uint64_t>(step));
  return event;
}

}  // namespace

uint32_t masked_crc32c(std::string_view data) {
  return std::rotr(crc32c(data.data(), data.size()), 15) + 0xa282ead8u;
}

std::string event_file_head(double time) {
  return record(Message().real64(1, time).bytes(3, "brain.Event:2"));
}

std::string event_of_start(double time, int64_t step) {
  constexpr uint64_t kStart = 1;  // of SessionLog.SessionStatus
  return record(event_at(time, step + 1).message(7, Message().varint(1, kStart)));
}

std::string event_of_scalars(double time, int64_t step, std::span<const NamedScalar> scalars) {
  Message summary;
  for (const auto& [tag, value] : scalars) {
    summary.message(1, Message().bytes(1, tag).real32(2, static_cast<float>(value)));
  }
  return record(event_at(time, step).message(5, summary));
}

std::string event_of_texts(double time, int64_t step, std::span<const NamedText> texts) {
  constexpr uint64_t kString = 7;  // of DataType
  Message summary;
  for (const auto& [tag, text] : texts) {
    const Message shape = Message().message(2, Message().varint(1, 1));  // one dimension of size 1
    const Message tensor = Message().varint(1, kString).message(2, shape).bytes(8, text);
    const Message metadata = Message().message(1, Message().bytes(1, "text"));  // plugin_data.plugin_name
    summary.message(1, Message().bytes(1, tag).message(8, tensor).message(9, metadata));
  }
  return record(event_at(time, step).message(5, summary));
}

}  // namespace ziggurat
