// Runs a net on Caffe in double precision: the last layer's first top, and the gradient back to the picture.
//
// usage: real_caffe NET.prototxt MODEL.caffemodel FOLDER     (MODEL - for a net without weights)
//
// FOLDER/input is the first input's data and FOLDER/diff, if it is there, the gradient of the last layer's first top,
// both as doubles. Written are FOLDER/top (doubles), FOLDER/shape (text), and FOLDER/gradient (doubles). A net that Caffe
// refuses ends the program with Caffe's own message.
//
// To build: the sources of BVLC's Caffe without its solvers, databases, data layers, parallel.cpp and tools, compiled with
// -DCPU_ONLY -DUSE_HDF5, this file, and -lprotobuf -lglog -lgflags -lboost_thread -lhdf5 -lhdf5_hl -lopenblas. With
// protobuf 3 SetTotalBytesLimit takes one argument. A layer of a fork is its .cpp and .hpp, and its parameter message
// in caffe.proto.
#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "caffe/net.hpp"
#include "caffe/util/upgrade_proto.hpp"

using namespace caffe;

static bool read(const std::string& path, int count, double* data) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return false;
  file.read(reinterpret_cast<char*>(data), sizeof(double) * count);
  CHECK_EQ(file.gcount(), std::streamsize(sizeof(double) * count)) << path;
  return true;
}

static void write(const std::string& path, int count, const double* data) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(data), sizeof(double) * count);
}

int main(int argc, char** argv) {
  CHECK_EQ(argc, 4);
  const std::string folder = std::string(argv[3]) + "/";
  NetParameter description;
  ReadNetParamsFromTextFileOrDie(argv[1], &description);
  description.mutable_state()->set_phase(TEST);
  description.set_force_backward(true);
  Net<double> net(description);
  if (std::string(argv[2]) != "-") net.CopyTrainedLayersFrom(argv[2]);

  Blob<double>& picture = *net.input_blobs()[0];
  CHECK(read(folder + "input", picture.count(), picture.mutable_cpu_data()));
  net.Forward();
  int last = net.layers().size() - 1;
  Blob<double>& top = *net.top_vecs()[last][0];
  write(folder + "top", top.count(), top.cpu_data());
  std::ofstream shape(folder + "shape");
  for (int axis = 0; axis < top.num_axes(); axis++) shape << top.shape(axis) << " ";
  shape.close();

  // Only layers on the way down are run, since some have no backward pass.
  std::vector<double> diff(top.count());
  if (!read(folder + "diff", top.count(), diff.data())) return 0;
  std::copy(diff.begin(), diff.end(), top.mutable_cpu_diff());
  std::set<int> reached = {net.top_ids(last)[0]};
  for (int i = last; i >= 0; i--) {
    bool used = false;
    for (int blob : net.top_ids(i)) used = used || reached.count(blob);
    if (!used || !net.layer_need_backward()[i] || net.bottom_ids(i).empty()) continue;
    net.layers()[i]->Backward(net.top_vecs()[i], net.bottom_need_backward()[i], net.bottom_vecs()[i]);
    reached.insert(net.bottom_ids(i).begin(), net.bottom_ids(i).end());
  }
  write(folder + "gradient", picture.count(), picture.cpu_diff());
}
