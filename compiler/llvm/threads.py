def fork(triple): return '''
define internal i32 @nnc.fork(ptr %pool, ptr %body, ptr %context, i64 %turns) #0 {
  %code = call i32 %body(ptr %context, i64 0, i64 %turns)
  ret i32 %code
}
'''
